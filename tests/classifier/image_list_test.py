"""Lists of images: what is accepted, in what order it is decoded."""

import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.classifier import image_list
from tests.classifier import preprocessing_test

GREY = preprocessing_test.GREY
DISK = preprocessing_test.DISK


@pytest.mark.parametrize(
  ("images", "kind", "problem"),
  [
    ([], ValueError, "images is empty: give at least one"),
    (np.zeros((0, 8, 6, 1), np.uint8), ValueError, "images is empty"),
    (np.zeros((2, 8, 6, 1)), TypeError, "images has the dtype float64.*uint8"),
    (np.zeros((8, 6, 1), np.uint8), ValueError, r"one image is image\[None\]"),
    (np.zeros((2, 8, 6, 4), np.uint8), ValueError, r"each of .*\[8, 6, 4\]"),
    (
      [np.zeros((8, 6), np.float32)],
      TypeError,
      "image 0 has the dtype float32",
    ),
    ([np.zeros((8, 6, 2), np.uint8)], ValueError, r"image 0 has .*\[8, 6, 2\]"),
    (["a.png", 3], TypeError, "image 1 is a int"),
    ("a.png", TypeError, "one path, 'a.png': give a list"),
    (Image.new("L", (6, 8)), TypeError, "one Pillow image: give a list"),
    (3, TypeError, "images is a int: give a uint8 array"),
  ],
)
def test_what_is_no_list_of_images_is_refused(images, kind, problem):
  with pytest.raises(kind, match=problem):
    image_list.ImageList(images, GREY)


class Column:
  """What pandas and Polars have for a column of a table."""

  def __init__(self, items, *, kind=object):
    self._items, self._kind = items, kind

  def __array__(self, dtype=None, copy=None):
    return np.array(self._items, dtype=dtype or self._kind)

  def __len__(self):
    return len(self._items)


class Table:
  columns = ("path",)


@pytest.mark.parametrize(
  "given",
  [
    list,
    tuple,
    iter,
    np.array,
    Column,
    lambda names: (name for name in names),
    lambda names: map(pathlib.Path, names),
    lambda names: dict.fromkeys(names).keys(),
    lambda names: np.array(names, dtype=object),
    lambda names: np.array([pathlib.Path(name) for name in names]),
    lambda names: np.array(names, dtype=bytes),
    lambda names: Column(names, kind=str),
  ],
)
def test_paths_may_come_from_anywhere(given, files):
  names = [str(files[k]) for k in (3, 0, 2)]
  images = image_list.ImageList(given(names), GREY)
  assert [images.name(k) for k in range(3)] == names
  (batch,) = images.batches(3)
  assert batch.pixels[:, 0, 0, 0].tolist() == [3, 0, 2]


def test_images_may_come_from_anywhere():
  ragged = np.empty(2, object)
  ragged[:] = [np.zeros((8, 6), np.uint8), np.ones((9, 7), np.uint8)]
  for images in (ragged, iter(ragged), map(Image.fromarray, ragged)):
    (batch,) = image_list.ImageList(images, GREY).batches(2)
    assert batch.pixels[:, 0, 0, 0].tolist() == [0, 1]


@pytest.mark.parametrize(
  ("images", "kind", "problem"),
  [
    (np.array([["a.png"], ["b.png"]]), ValueError, r"\[2, 1\].*one column"),
    (np.array("a.png"), ValueError, r"the shape \[\]: give paths as a list"),
    (Column(["a.png", float("nan")]), TypeError, "image 1 is nan, a missing v"),
    (["a.png", None], TypeError, "image 1 is None, a missing value: leave out"),
    (Table(), TypeError, r'a Table: give one column of it, such as images\["p'),
    ({"path": ["a.png"]}, TypeError, "images is a dict: give one column"),
    (b"a.png", TypeError, "images is one path, b'a.png': give a list"),
    (pathlib.Path("a.png"), TypeError, "images is one path, 'a.png'"),
    (iter(()), ValueError, "images is empty"),
    (np.array([], object), ValueError, "images is empty"),
    (np.zeros(3, np.uint8), ValueError, r"has the shape \[3\]"),
  ],
)
def test_what_is_nearly_a_list_is_named(images, kind, problem):
  with pytest.raises(kind, match=problem):
    image_list.ImageList(images, GREY)


def test_a_path_that_no_system_has_is_a_bad_image(files):
  images = image_list.ImageList([files[0], "b\0.png"], GREY)
  (batch,) = images.batches(2, skip_bad=True)
  assert list(batch.bad) == [1]
  # The reason is Python's, and changes with it.
  assert re.fullmatch(
    r"it cannot be read \(.*embedded null \w+.*\)", batch.bad[1]
  )


def test_arrays_of_the_runs_size_are_not_copied():
  images = np.arange(5 * 48, dtype=np.uint8).reshape(5, 8, 6, 1)
  batches = list(image_list.ImageList(images, GREY).batches(2))
  assert [len(batch.pixels) for batch in batches] == [2, 2, 1]
  assert all(np.shares_memory(batch.pixels, images) for batch in batches)
  np.testing.assert_array_equal(batches[2].places, [4])


def test_arrays_of_a_run_on_disk_are_cut():
  images = np.zeros((1, 28, 28, 3), np.uint8)
  images[:, 1:-1, 1:-1] = 255
  (batch,) = image_list.ImageList(images, DISK).batches(4)
  # Enlarged to 32 pixels before 28 are cut out: the edge is gone.
  assert batch.pixels.min() > 200


@pytest.fixture
def files(tmp_path):
  for i in range(9):
    Image.new("L", (6, 8), i).save(tmp_path / f"{i}.png")
  (tmp_path / "4.png").write_text("no image")
  return [tmp_path / f"{i}.png" for i in range(9)]


def test_batches_come_in_order_without_the_bad_ones(files):
  images = image_list.ImageList(files, GREY, names=list("abcdefghi"))
  assert images.name(4) == "e"
  batches = list(images.batches(2, skip_bad=True))
  levels = [batch.pixels[:, 0, 0, 0].tolist() for batch in batches]
  assert levels == [[0, 1], [2, 3], [5], [6, 7], [8]]
  assert [batch.places.tolist() for batch in batches] == levels
  (place,) = batches[2].bad
  assert place == 4
  assert "it is not an image of a known format" in batches[2].bad[4]
  assert not batches[0].bad


def test_without_skipping_a_bad_image_is_an_error(files):
  images = image_list.ImageList(files, GREY)
  with pytest.raises(errors.BadImageError, match=r"4\.png: it is not an image"):
    list(images.batches(3))


def test_a_reader_that_stops_early_ends_the_threads(files):
  images = image_list.ImageList(files * 20, GREY)
  batches = images.batches(2, skip_bad=True)
  next(batches)
  batches.close()
  with pytest.raises(StopIteration):
    next(batches)
