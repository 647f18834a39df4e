"""Names of classes and folders that are probably not meant."""

import numpy as np
import pytest

from paws_jax.data.sources import catalog
from paws_jax.doctor import class_names
from paws_jax.doctor import inspect


@pytest.mark.parametrize(
  ("names", "alike"),
  [
    (("cat", "dog"), []),
    (("Cat", "cat ", "dog"), [("Cat", "cat ")]),
    (("ice cream", "icecream"), [("ice cream", "icecream")]),
    (("Stra\u00dfe", "STRASSE"), [("Stra\u00dfe", "STRASSE")]),
    # One as a single character, one as "e" and an accent.
    (("caf\u00e9", "cafe\u0301", "cafe"), [("caf\u00e9", "cafe\u0301")]),
    # A space without a width, and marks of the direction of writing.
    (("cat", "cat\u200b", "\u202acat"), [("cat", "cat\u200b", "\u202acat")]),
    (("1", "01", "1.0", "+1", "10"), [("1", "01", "1.0", "+1")]),
    (("0", "00", "0.5", "-1", "1"), [("0", "00")]),
    (("\uff21", "b", "B", "a"), [("\uff21", "a"), ("b", "B")]),
  ],
)
def test_names_that_differ_in_form_only(names, alike):
  assert class_names.similar_names(names) == alike


def test_names_of_parts_of_a_data_set():
  names = ("cat", "Train", "val", "testbed", "unlabelled", "validation")
  assert class_names.split_names(names) == [
    "Train",
    "val",
    "unlabelled",
    "validation",
  ]


@pytest.mark.parametrize(
  ("paths", "below"),
  [
    (("train/cat/1.png", "train/dog/x/2.png"), ["cat", "dog"]),
    (("train/cat/1.png", "train/2.png"), []),
    (("train/cat/1.png", "../more/2.png"), []),
  ],
)
def test_folders_inside_the_classes(paths, below):
  assert class_names.subfolders(catalog.Files("/", paths)) == below
  images = inspect.ArrayImages("train", np.zeros((1, 2, 2, 1), np.uint8))
  assert class_names.subfolders(images) == []
