"""Images and labels listed in a CSV file: columns path, label and split.

  path,label,split
  2024/0001.jpg,cat,
  2024/0002.jpg,,
  2023/0815.png,dog,test

The second image is unlabelled; the first two are training images.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Callable
from collections.abc import Iterator

import numpy as np

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.data.sources import catalog
from paws_jax.data.sources import paths
from paws_jax.runs import files as files_lib

_COLUMNS = ("path", "label", "split")
_SPLITS = ("train", "val", "test")
_MAX_LISTED = 5


@dataclasses.dataclass(frozen=True)
class _Row:
  """One image of a manifest; `line` counts from 1, with the header."""

  line: int
  path: str
  label: str
  split: str

  def describe(self) -> str:
    """Returns e.g. "line 3, 'cat/1.jpg'", for messages."""
    return f"line {self.line}, {self.path!r}"


def load(path: str, *, directory: str) -> catalog.Catalog:
  """Reads a manifest without opening its images.

  The file is a comma-separated table in UTF-8, with or without a byte order
  mark, whose first line names the columns in any order. Other columns are
  ignored, unless their name differs from one of these only in case or a plural
  s. Spaces after a comma are ignored, other spaces are not.

  - path: relative to `directory`, with "/". It must not be absolute, nor
    contain "..". Symbolic links may lead out of the directory: whoever can
    place one there can place the image there, too.
  - label: blank for an unlabelled image. Where each label is an integer
    (without sign or leading zeros), classes are the integers 0 ... K - 1 with
    the names "0" ... "K-1"; a class without a training image is an error that
    names it, as no support could vote for it. Otherwise labels are names, and
    classes are sorted by name.
  - split, optional: train, val or test; blank means train. Images of val and
    test need a label that occurs in train.

  Args:
    path: path of the CSV file, as `paths.resolve` finds it.
    directory: directory of the images; "": that of the CSV file.

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
  rows = _rows(where, csv_path)
  _check_repeats(where, rows)
  _check_files(where, rows, root)
  class_names = _class_names(where, rows)
  _check_evaluation(where, rows, class_names)
  return catalog.Catalog(
    name=os.path.splitext(os.path.basename(csv_path))[0],
    class_names=class_names,
    **{split: _part(rows, split, root, class_names) for split in _SPLITS},
  )


def _rows(where: str, path: str) -> list[_Row]:
  """Reads the rows of a manifest, and checks each line."""
  rows: list[_Row] = []
  columns: dict[str, int] | None = None
  for line, fields in _records(where, path):
    if columns is None:
      columns = _columns(f"{where}, line {line}", fields)
      num_columns = len(fields)
      continue
    if len(fields) != num_columns:
      raise errors.InputError(
        f"{where}, line {line} has {len(fields)} fields, but the first line "
        f'{num_columns}: put a field that contains a comma in "quotes"'
      )
    row = _Row(
      line=line,
      path=os.path.normpath(
        _relative_path(where, line, fields[columns["path"]])
      ),
      label=fields[columns["label"]],
      split=fields[columns["split"]].strip() if "split" in columns else "",
    )
    row = dataclasses.replace(
      row,
      label=row.label if row.label.strip() else "",
      split=row.split or "train",
    )
    if row.split not in _SPLITS:
      raise errors.InputError(
        f"{where}, {row.describe()}: split {row.split!r} is unknown: use "
        "train, val or test, or leave it blank for train"
      )
    rows.append(row)
  if not rows:
    raise errors.InputError(
      f"{where} lists no image: write the columns path,label in the first "
      "line, and one image in each line after it"
    )
  return rows


def _records(where: str, path: str) -> Iterator[tuple[int, list[str]]]:
  """Yields (number of the first line, fields) of each record with contents."""
  content = files_lib.read_table(path, where)
  try:
    text = content.decode("utf-8-sig")
  except UnicodeDecodeError as error:
    line = content[: error.start].count(b"\n") + 1
    raise errors.InputError(
      f"{where}, line {line} is not UTF-8 (byte "
      f"0x{content[error.start]:02x}): save the table as CSV in UTF-8"
    ) from error
  table = csv.reader(
    io.StringIO(text, newline=""), skipinitialspace=True, strict=True
  )
  line = 1
  while True:
    try:
      fields = next(table, None)
    except csv.Error as error:
      raise errors.InputError(
        f"{where}, line {line} is not valid CSV ({error}): close each quote, "
        'and double a quote inside a quoted field: "a ""b"" c"'
      ) from error
    if fields is None:
      return
    # Spreadsheets may end a table with lines that hold only commas.
    if any(field.strip() for field in fields):
      yield line, fields
    line = table.line_num + 1


def _columns(where: str, fields: list[str]) -> dict[str, int]:
  """Returns the index of each known column in the first line."""
  names = [field.strip() for field in fields]
  for name in ("path", "label"):
    if name not in names:
      raise errors.InputError(
        f"{where} has no column {name!r}, but {names}: name the "
        "columns path, label and (optional) split in the first line, "
        "separated by commas"
      )
  for name in names:
    # Otherwise a capital letter would make training images of test images.
    meant = next((c for c in _COLUMNS if name.casefold() in (c, f"{c}s")), name)
    if name != meant:
      raise errors.InputError(
        f"{where} has a column {name!r}, which is ignored: rename it to "
        f"{meant!r}, or remove it"
      )
  columns = {n: names.index(n) for n in _COLUMNS if n in names}
  for name in columns:
    if names.count(name) > 1:
      raise errors.InputError(
        f"{where} names {names.count(name)} columns {name!r}: keep one"
      )
  return columns


def _relative_path(where: str, line: int, path: str) -> str:
  """Returns a path below the data directory; refuses any other."""
  if not path.strip():
    raise errors.InputError(
      f"{where}, line {line} has a blank path: fill it in, or remove the line"
    )
  if os.path.isabs(path) or ".." in re.split(r"[/\\]", path):
    raise errors.InputError(
      f"{where}, line {line}: the path {path!r} leaves the data directory: "
      'write it relative to data.dir, without ".."; to reach elsewhere, put '
      "a symbolic link into data.dir"
    )
  return path


def _check_repeats(where: str, rows: list[_Row]) -> None:
  """Refuses an image that is listed twice."""
  first: dict[str, _Row] = {}
  for row in rows:
    other = first.setdefault(row.path, row)
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


def _check_files(where: str, rows: list[_Row], root: str) -> None:
  """Refuses images that do not exist."""
  _raise_if_any(
    errors.MissingFileError,
    [row for row in rows if not os.path.isfile(os.path.join(root, row.path))],
    lambda row: row.describe(),
    f"{where}: {{count}} of {len(rows)} images do not exist in {root!r}: "
    '{listed}. Correct the paths (relative to data.dir, with "/") or data.dir',
  )


def _class_names(where: str, rows: list[_Row]) -> tuple[str, ...]:
  """Returns the classes of the labelled training images, in order."""
  labelled = [row for row in rows if row.label]
  train = {row.label for row in labelled if row.split == "train"}
  if not train:
    raise errors.InputError(
      f"{where}: none of the {len(rows)} images is a training image with "
      "a label: fill in the column label for some images of each class"
    )
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
      "or write names instead of numbers"
    )
  return tuple(map(str, range(num_classes)))


def _check_evaluation(
  where: str, rows: list[_Row], class_names: tuple[str, ...]
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
  rows: list[_Row],
  describe: Callable[[_Row], str],
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
  rows: list[_Row], split: str, root: str, class_names: tuple[str, ...]
) -> catalog.Part | None:
  """Returns the images of a split; None if there are none."""
  ids = {name: class_id for class_id, name in enumerate(class_names)}
  ids[""] = catalog.UNLABELLED
  rows = [row for row in rows if row.split == split]
  if not rows:
    return None
  return catalog.Part(
    images=catalog.Files(root=root, paths=tuple(row.path for row in rows)),
    labels=np.asarray([ids[row.label] for row in rows], np.int32),
  )
