"""Names of classes that suggest a wrong folder or a class with two names."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence

from paws_jax.data.sources import catalog

_SPLIT_NAMES = frozenset(
  name
  for names in (
    "train training val valid validation dev eval evaluation test testing",
    "holdout unlabelled unlabeled labelled labeled unsupervised",
    "images image imgs img pictures photos data dataset",
  )
  for name in names.split()
)


def similar_names(class_names: Sequence[str]) -> list[tuple[str, ...]]:
  """Finds names that differ in case, spaces, Unicode form or zeros only."""
  by_form: dict[str, list[str]] = {}
  for name in class_names:
    plain = unicodedata.normalize("NFKC", name).casefold()
    # Marks without a width, such as those that set the direction of writing.
    plain = "".join(c for c in plain if unicodedata.category(c) != "Cf")
    # Once more, since case folding can undo the normal form.
    plain = unicodedata.normalize("NFKC", "".join(plain.split()))
    # Equal numbers: "1", "01" and "1.0".
    if re.fullmatch(r"[-+]?\d+(\.0*)?", plain, re.ASCII):
      plain = plain.partition(".")[0].removeprefix("+").lstrip("0") or "0"
    by_form.setdefault(plain, []).append(name)
  return [tuple(names) for names in by_form.values() if len(names) > 1]


def split_names(class_names: Sequence[str]) -> list[str]:
  """Finds names of parts of a data set, such as "train", among the classes."""
  return [name for name in class_names if name.casefold() in _SPLIT_NAMES]


def subfolders(images: catalog.Reader) -> list[str]:
  """Names of the folders in the class folders; none if images lie outside."""
  if not isinstance(images, catalog.Files):
    return []
  parts = [path.split(os.sep) for path in images.paths]
  if any(len(names) < 3 or names[0] == os.pardir for names in parts):
    return []
  return sorted({names[1] for names in parts})
