"""Images and labels listed in a CSV file: columns path, label and split.

  path,label,split
  2024/0001.jpg,cat,
  2024/0002.jpg,,
  2023/0815.png,dog,test

The second image is unlabelled; the first two are training images.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.data.labels import label_names
from paws_jax.data.sources import catalog
from paws_jax.data.sources import folders
from paws_jax.data.sources import listed_files
from paws_jax.data.sources import manifest_rows
from paws_jax.data.sources import paths
from paws_jax.data.sources import system_folders

_MAX_LISTED = 5


def load(
  path: str, *, directory: str, test_dir: str = "", real_labels: str = ""
) -> catalog.Catalog:
  """Reads a manifest without opening its images.

  The file is a comma-separated table in UTF-8, with or without a byte order
  mark, whose first line names the columns in any order. Other columns are
  ignored, unless their name differs from one of these only in case or a plural
  s. Spaces after a comma are ignored, other spaces are not.

  - path (or another of `listed_files.IMAGE_COLUMNS`): relative to `directory`,
    with "/", or absolute and below it. It must not contain "..". Symbolic links
    may lead out of the directory: whoever can place one there can place the
    image there, too. Names match in any Unicode form.
  - label: blank for an unlabelled image; "nan", "None" and the like are
    refused. Where each label is an integer (without sign or leading zeros),
    classes are the integers 0 ... K - 1 with the names "0" ... "K-1"; a class
    without a training image is an error that names it, as no support could
    vote for it. Otherwise labels are names, and classes are sorted by name.
  - split, optional: train, val or test; blank means train. Images of val and
    test need a label that occurs in train.

  Args:
    path: path of the CSV file, as `paths.resolve` finds it.
    directory: directory of the images; "": that of the CSV file.
    test_dir: holds test images in folders of the classes, instead of rows with
      split test; "": there are none.
    real_labels: labels that look like missing ones and are not, with commas.

  Returns:
    The catalog; images of each part are in the order of the file.

  Raises:
    FileNotFoundError: the manifest, the directory or images do not exist; names
      the first few.
    ValueError: the contents of the file are wrong; names the line.
  """
  csv_path = paths.resolve("data.manifest", path, data_dir=directory)
  if not os.path.isfile(csv_path):
    raise errors.MissingFileError(
      f"data.manifest = {path!r} is not a file: give the path of a CSV file "
      "with the columns path, label and (optional) split, with "
      "--config.data.manifest=FILE"
    )
  root = directory or os.path.dirname(csv_path) or os.curdir
  if not os.path.isdir(root):
    raise errors.MissingFileError(
      f"data.dir = {directory!r} is not a directory: paths in data.manifest "
      "are relative to it. If it has moved, give its place with "
      "--config.data.dir=DIR"
    )
  where = f"data.manifest = {csv_path!r}"
  rows = manifest_rows.read(where, csv_path, root)
  _check_missing(where, rows, real_labels)
  rows = _in_one_form(rows, root)
  _check_repeats(where, rows)
  _check_files(where, rows, root)
  class_names = _class_names(where, rows)
  _check_evaluation(where, rows, class_names)
  return _catalog(where, csv_path, rows, root, class_names, test_dir)


def _catalog(
  where: str,
  csv_path: str,
  rows: list[manifest_rows.Row],
  root: str,
  class_names: tuple[str, ...],
  test_dir: str,
) -> catalog.Catalog:
  """Returns the catalog of valid rows and of a directory of test images."""
  parts: dict[str, Any] = {
    s: _part(rows, s, root, class_names) for s in manifest_rows.SPLITS
  }
  others: dict[str, Any] = {}
  if test_dir:
    parts["test"], others = folders.load_test(
      test_dir, data_dir=root, class_names=class_names
    )
    _check_test_dir(where, rows, root, parts["test"].images.root)
  return catalog.Catalog(
    name=os.path.splitext(os.path.basename(csv_path))[0],
    class_names=class_names,
    warnings=(
      *system_folders.warnings(row.path for row in rows),
      *system_folders.folders_of_copies(r.path for r in rows if r.label),
      *label_names.warnings(class_names, [r.label for r in rows if r.label]),
    ),
    **parts,
    **others,
  )


def _check_missing(
  where: str, rows: list[manifest_rows.Row], real_labels: str
) -> None:
  """Refuses labels that programs write where there is none."""
  found = label_names.missing((r.label for r in rows), real_labels=real_labels)
  _raise_if_any(
    errors.InputError,
    [row for row in rows if row.label in found],
    lambda row: f"{row.describe()}: {row.label!r}",
    f"{where}: {{count}} rows have a label that programs write where one is "
    "missing: {listed}. Leave the cell empty where an image has no label; "
    + label_names.remedy(found),
  )


def _in_one_form(
  rows: list[manifest_rows.Row], root: str
) -> list[manifest_rows.Row]:
  """Finds files, and makes equal labels equal, whatever their Unicode form."""
  forms: dict[str, set[str]] = {}
  for row in rows:
    forms.setdefault(listed_files.in_one_form(row.label), set()).add(row.label)
  labels = {
    form: name
    for name, several in forms.items()
    if len(several) > 1
    for form in several
  }
  disk = listed_files.NameForms()
  return [
    dataclasses.replace(
      row,
      label=labels.get(row.label, row.label),
      file=disk.find(root, row.path),
    )
    for row in rows
  ]


def _check_test_dir(
  where: str, rows: list[manifest_rows.Row], root: str, test_dir: str
) -> None:
  """Refuses test images in two places, and training images among them."""
  _raise_if_any(
    errors.InputError,
    [row for row in rows if row.split == "test"],
    lambda row: row.describe(),
    f"{where} lists {{count}} images with split test, and data.test_dir = "
    f"{test_dir!r} is given, too: {{listed}}. Remove them from one of the two",
  )
  places: dict[str, bool] = {}

  def is_inside(row: manifest_rows.Row) -> bool:
    folder = os.path.dirname(os.path.join(root, row.file))
    if folder not in places:
      real = os.path.realpath(folder)
      places[folder] = os.path.commonpath([real, test_dir]) == test_dir
    return places[folder]

  _raise_if_any(
    errors.InputError,
    [row for row in rows if is_inside(row)],
    lambda row: row.describe(),
    f"{where}: {{count}} images to train or validate on lie in data.test_dir = "
    f"{test_dir!r}: {{listed}}. Remove them from the table, or move them",
  )


def _check_repeats(where: str, rows: list[manifest_rows.Row]) -> None:
  """Refuses an image that is listed twice."""
  first: dict[str, manifest_rows.Row] = {}
  for row in rows:
    other = first.setdefault(row.file, row)
    if other is row:
      continue
    differs = [
      f"{field}s {getattr(other, field)!r} and {getattr(row, field)!r}"
      for field in ("label", "split")
      if getattr(other, field) != getattr(row, field)
    ]
    raise errors.InputError(
      f"{where}: lines {other.line} and {row.line} both list {row.path!r}, "
      f"with {' and '.join(differs) or 'the same label and split'}: remove "
      "one of the two"
    )


def _check_files(where: str, rows: list[manifest_rows.Row], root: str) -> None:
  """Refuses images that do not exist."""
  no_files = [
    row for row in rows if not os.path.isfile(os.path.join(root, row.file))
  ]
  absent = [
    row for row in no_files if not os.path.exists(os.path.join(root, row.file))
  ]
  hint = listed_files.hint(row.path for row in absent)
  _raise_if_any(
    errors.MissingFileError,
    absent,
    lambda row: row.describe(),
    f"{where}: {{count}} of {len(rows)} images do not exist in {root!r}"
    + (f".{hint} These are " if hint else ": ")
    + '{listed}. Correct the paths (relative to data.dir, with "/") or '
    "data.dir",
  )
  _raise_if_any(
    errors.InputError,
    no_files,
    lambda row: row.describe(),
    f"{where}: {{count}} of {len(rows)} rows name a directory, or something "
    "else that is no file: {listed}. Give the path of one image in each row",
  )


def _class_names(where: str, rows: list[manifest_rows.Row]) -> tuple[str, ...]:
  """Returns the classes of the labelled training images, in order."""
  labelled = [row for row in rows if row.label]
  train = {row.label for row in labelled if row.split == "train"}
  if not train:
    return ()
  if not all(re.fullmatch("-?(0|[1-9][0-9]{0,17})", r.label) for r in labelled):
    return tuple(sorted(train))
  _raise_if_any(
    errors.InputError,
    [row for row in labelled if row.label.startswith("-")],
    lambda row: f"{row.describe()}: {row.label}",
    f"{where}: {{count}} labels are negative: {{listed}}. Leave the label of "
    "an unlabelled image blank, and count classes from 0",
  )
  num_classes = max(map(int, train)) + 1
  num_missing = num_classes - len(train)
  if num_missing:
    # A label may be as large as 10**18.
    missing: list[str] = []
    number = 0
    while len(missing) < min(num_missing, _MAX_LISTED):
      missing += [str(number)] if str(number) not in train else []
      number += 1
    more = num_missing - len(missing)
    raise errors.InputError(
      f"{where}: labels are integers up to {num_classes - 1}, but no training "
      f"image has the label {', '.join(missing)}"
      + (f" and {more:,} more" if more else "")
      + ": label an image of each class, count classes from 0 without gaps, "
      f"or write names instead of numbers. {label_names.CLASSES_OF_NUMBERS}"
    )
  return tuple(map(str, range(num_classes)))


def _check_evaluation(
  where: str, rows: list[manifest_rows.Row], class_names: tuple[str, ...]
) -> None:
  """Refuses images of val and test without a label that occurs in train."""
  held_out = [row for row in rows if row.split != "train"]
  _raise_if_any(
    errors.InputError,
    [row for row in held_out if not row.label],
    lambda row: row.describe(),
    f"{where}: {{count}} images of val or test have no label: {{listed}}. "
    "Fill it in, or leave their split blank to train on them unlabelled",
  )
  known = set(class_names)
  _raise_if_any(
    errors.InputError,
    [row for row in held_out if row.label not in known],
    lambda row: f"{row.describe()}: {row.label!r}",
    f"{where}: {{count}} images of val or test have a label that no training "
    "image has: {listed}. Correct it, or label training images of the class",
  )


def _raise_if_any(
  kind: Callable[[str], Exception],
  rows: list[manifest_rows.Row],
  describe: Callable[[manifest_rows.Row], str],
  message: str,
) -> None:
  """Raises an error if there are rows; fills in {count} and {listed}."""
  if not rows:
    return
  listed = text_lib.first_few(
    map(describe, rows), most=_MAX_LISTED, separator="; "
  )
  # Not str.format: paths may hold braces.
  raise kind(
    message.replace("{count}", str(len(rows))).replace("{listed}", listed)
  )


def _part(
  rows: list[manifest_rows.Row],
  split: str,
  root: str,
  class_names: tuple[str, ...],
) -> catalog.Part | None:
  """Returns the images of a split; None if there are none."""
  ids = {name: class_id for class_id, name in enumerate(class_names)}
  ids[""] = catalog.UNLABELLED
  rows = [row for row in rows if row.split == split]
  if not rows:
    return None
  return catalog.Part(
    images=catalog.Files(
      root=root,
      paths=tuple(row.file for row in rows),
      keys=tuple(row.path for row in rows),
    ),
    labels=np.asarray([ids[row.label] for row in rows], np.int32),
  )
