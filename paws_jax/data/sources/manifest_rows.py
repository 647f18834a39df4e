"""The rows of a manifest, checked line by line."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
from collections.abc import Iterator

from paws_jax import errors
from paws_jax.data.sources import listed_files

SPLITS = ("train", "val", "test")
_COLUMNS = ("path", "label", "split")


@dataclasses.dataclass(frozen=True)
class Row:
  """One image of a manifest.

  Attributes:
    line: counts from 1, with the header.
    path: of the image, relative, as the table has it.
    label: "" without one.
    split: one of `SPLITS`.
    file: `path` in the Unicode form of the disk.
  """

  line: int
  path: str
  label: str
  split: str
  file: str = ""

  def describe(self) -> str:
    """Returns e.g. "line 3, 'cat/1.jpg'", for messages."""
    return f"line {self.line}, {self.path!r}"


def read(where: str, path: str, root: str) -> list[Row]:
  """Reads the rows of a manifest, and checks each line.

  Args:
    where: the field and the path, for messages.
    path: of the manifest.
    root: directory that paths are relative to.
  """
  rows: list[Row] = []
  columns: dict[str, int] | None = None
  for line, fields in _records(where, path):
    if columns is None:
      columns = _columns(f"{where}, line {line}", fields)
      num_columns = len(fields)
      continue
    if len(fields) != num_columns:
      raise errors.InputError(
        f"{where}, line {line} has {len(fields)} fields, but the first line "
        f'{num_columns}: put a field that contains a comma in "quotes", and '
        "end no line with a comma"
      )
    row = Row(
      line=line,
      path=os.path.normpath(
        _relative_path(where, line, fields[columns["path"]], root)
      ),
      label=fields[columns["label"]],
      split=fields[columns["split"]].strip() if "split" in columns else "",
    )
    row = dataclasses.replace(
      row,
      label=row.label if row.label.strip() else "",
      split=row.split or "train",
    )
    if row.split not in SPLITS:
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
  content = listed_files.read_table(path, where)
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
  place = listed_files.image_column(names)
  if place is not None and "path" not in names:
    # A column "image" or "File" is meant like "path".
    names[place] = "path"
  for name in names:
    # Otherwise a capital letter would make training images of test images.
    meant = next((c for c in _COLUMNS if name.casefold() in (c, f"{c}s")), name)
    if name != meant:
      raise errors.InputError(
        f"{where} has a column {name!r}, which is ignored: rename it to "
        f"{meant!r}, or remove it"
      )
  for name in ("path", "label"):
    if name not in names:
      alike = listed_files.IMAGE_COLUMNS[1:]
      raise errors.InputError(
        f"{where} has no column {name!r}, but {listed_files.shown(names)}: "
        f"name the columns path (or {', '.join(alike)}), label and (optional) "
        "split in the first line, separated by commas."
        + listed_files.header_hint(names)
      )
  columns = {n: names.index(n) for n in _COLUMNS if n in names}
  for name in columns:
    if names.count(name) > 1:
      raise errors.InputError(
        f"{where} names {names.count(name)} columns {name!r}: keep one"
      )
  return columns


def _relative_path(where: str, line: int, path: str, root: str) -> str:
  """Returns a path below the data directory; refuses any other."""
  if not path.strip():
    raise errors.InputError(
      f"{where}, line {line} has a blank path: fill it in, or remove the line"
    )
  up = ".." in re.split(r"[/\\]", path)
  relative = path if up else listed_files.below(path, root)
  if up or os.path.isabs(relative):
    raise errors.InputError(
      f"{where}, line {line}: the path {path!r} leaves the data directory "
      f'{root!r}: write it relative to data.dir, without ".."; to reach '
      "elsewhere, put a symbolic link into data.dir" + listed_files.hint([path])
    )
  return relative
