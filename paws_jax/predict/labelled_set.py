"""Images with labels for a classifier to be judged on: `--test`."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Iterator
from collections.abc import Sequence

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.data.sources import listed_files
from paws_jax.predict import find_images

_LABEL, _SPLIT, _TEST = "label", "split", "test"
_MAX_LISTED = 10


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSet:
  """Images of known classes.

  Attributes:
    files: the images.
    labels: int32 [n], places in the names of the classes.
  """

  files: find_images.ImageFiles
  labels: np.ndarray

  @property
  def name(self) -> str:
    """The last part of the path, without the ending of a table."""
    last = os.path.basename(self.files.given)
    return last[:-4] if last.lower().endswith(".csv") else last

  def digest(self, class_names: Sequence[str]) -> str:
    """Hex sha256 of names and classes, not of pixels or the directory."""
    lines = sorted(
      f"{class_names[label]}\n{name}\n"
      for name, label in zip(self.files.names, self.labels, strict=True)
    )
    content = "".join(lines).encode("utf-8", "surrogateescape")
    return hashlib.sha256(content).hexdigest()


def find(given: str, class_names: Sequence[str]) -> LabelledSet:
  """Lists labelled images without opening them.

  A directory holds a folder of images for each class. A CSV file has a column
  of paths, as for `--images`, and a column `label`; where it has a column
  `split` with rows of "test", only those count, otherwise all rows with a
  label.

  Args:
    given: --test.
    class_names: of the classifier.

  Raises:
    FileNotFoundError: nothing is there.
    InputError: there is no labelled image, or a label that is not a class of
      the classifier; names the first few.
  """
  path = os.path.expanduser(given)
  where = f"--test={given}"
  if os.path.isfile(path) and path.lower().endswith(".csv"):
    files, labels = _from_table(where, path)
  elif os.path.isfile(path):
    raise errors.InputError(
      f"{where} is one image, without a label: give a directory with one "
      "folder of images for each class, or a CSV file with the columns path "
      "and label."
    )
  else:
    files = find_images.find("--test", given)
    labels = _folders(where, files)
  return LabelledSet(files, _numbers(where, files.names, labels, class_names))


def _folders(where: str, files: find_images.ImageFiles) -> list[str]:
  """Names of the folders at the top, one for each image."""
  outside = [name for name in files.names if os.sep not in name]
  if outside:
    raise errors.InputError(
      f"{where}: {len(outside)} of {len(files)} images are in no folder of a "
      f"class: {text.first_few(map(repr, outside), most=_MAX_LISTED)}. Give a "
      "directory with one folder of images for each class, or a CSV file with "
      "the columns path and label."
    )
  return [name.split(os.sep, 1)[0] for name in files.names]


def _from_table(
  where: str, path: str
) -> tuple[find_images.ImageFiles, list[str]]:
  """Paths and labels of a CSV file."""
  rows = list(_rows(where, path))
  notices = []
  if any(split == _TEST for _, _, split in rows):
    rows = [row for row in rows if row[2] == _TEST]
  else:
    rows = [row for row in rows if row[1]]
    if any(split for _, _, split in rows):
      notices.append(
        f"no row of {path} has {_TEST} in the column {_SPLIT}: all {len(rows)} "
        "with a label are measured, also images of training"
      )
  if not rows:
    raise errors.InputError(
      f"{where}: no row has a label: fill in the column {_LABEL}."
    )
  unlabelled = [name for name, label, _ in rows if not label]
  if unlabelled:
    raise errors.InputError(
      f"{where}: {len(unlabelled)} test images have no label: "
      f"{text.first_few(map(repr, unlabelled), most=_MAX_LISTED)}. Fill it in, "
      "or remove these rows."
    )
  root, disk = find_images.table_root(path), listed_files.NameForms()
  labels: dict[str, str] = {}
  names: dict[str, str] = {}
  for field, label, _ in rows:
    name = find_images.listed_name(root, field)
    # One file may be written in several ways.
    name = names.setdefault(os.path.normpath(os.path.join(root, name)), name)
    if labels.setdefault(name, label) != label:
      raise errors.InputError(
        f"{where} lists {name!r} with the labels {labels[name]!r} and "
        f"{label!r}: remove one of the rows."
      )
  notices += find_images.notices_of_paths(root, labels)
  files = find_images.ImageFiles(
    given=os.path.abspath(path),
    root=root,
    names=tuple(labels),
    notices=tuple(notices),
    forms={name: disk.find(root, name) for name in labels},
  )
  return files, list(labels.values())


def _rows(where: str, path: str) -> Iterator[tuple[str, str, str]]:
  """Path, label and split of each row of a table."""
  content = listed_files.read_table(path, where)
  try:
    table = csv.reader(
      io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True
    )
    records = list(table)
  except UnicodeDecodeError:
    raise errors.InputError(
      f"{where} is not UTF-8: save the table as CSV in UTF-8."
    ) from None
  except csv.Error as error:
    raise errors.InputError(f"{where} is not a CSV file ({error}).") from None
  first = records[0] if records else []
  header = [name.strip().casefold() for name in first]
  place = listed_files.image_column(header)
  if place is None or _LABEL not in header:
    raise errors.InputError(
      f"{where} has the columns {listed_files.shown(header)}: name the columns "
      f"path and {_LABEL} in the first line, with commas between them."
      + listed_files.header_hint(header)
    )
  places = place, header.index(_LABEL)
  split = header.index(_SPLIT) if _SPLIT in header else None
  for number, fields in enumerate(records[1:], 2):
    if not any(field.strip() for field in fields):
      continue
    if len(fields) != len(header) or not fields[places[0]].strip():
      raise errors.InputError(
        f"{where}: row {number} has {len(fields)} fields of {len(header)}, or "
        "no path: correct the row, or remove it."
      )
    name, label = (fields[place] for place in places)
    part = "" if split is None else fields[split].strip().casefold()
    yield name, label.strip(), part


def _numbers(
  where: str,
  names: Sequence[str],
  labels: Sequence[str],
  class_names: Sequence[str],
) -> np.ndarray:
  """Numbers of the classes; a name may have another Unicode form."""
  known = {
    listed_files.in_one_form(name): k for k, name in enumerate(class_names)
  }
  known |= {name: k for k, name in enumerate(class_names)}
  numbers = [
    known.get(label, known.get(listed_files.in_one_form(label)))
    for label in labels
  ]
  unknown = [
    f"{text.printable(label, most=80)!r} ({name})"
    for name, label, number in zip(names, labels, numbers, strict=True)
    if number is None
  ]
  if unknown:
    raise errors.InputError(
      f"{where}: {len(unknown)} images are of classes that the run does not "
      f"know: {text.first_few(unknown, most=_MAX_LISTED)}. Its classes are "
      f"{text.first_few(map(repr, class_names), most=_MAX_LISTED)}."
    )
  return np.asarray(numbers, np.int32)
