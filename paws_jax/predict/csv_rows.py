"""Rows of a CSV file that is appended to, and that a crash may cut off.

The file is UTF-8 whatever file names are: see `text.escape`.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import csv
import dataclasses
import io
import itertools
import os
import pathlib
import re
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import BinaryIO
from typing import TypeGuard

import numpy as np

from paws_jax import text as text_lib

# Of files of version 0.1.0, which held the bytes of a name as they were.
_TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}
EMBEDDING = "embedding"
_NUMBERS = ("probability", "weight", "entropy", "novelty", "in_domain")


def number(value: Any) -> str:
  """Six significant digits."""
  return f"{float(value):.6g}"


def encode_vector(values: np.ndarray) -> str:
  """float32 [D] as a text without loss: base64 of the little-endian bytes."""
  return base64.b64encode(values.astype("<f4").tobytes()).decode()


def decode_vector(field: str) -> np.ndarray:
  """float32 [D] of `encode_vector`.

  Raises:
    ValueError: it is of nothing else, or has no value.
  """
  content = base64.b64decode(field, validate=True)
  return np.frombuffer(content or b"?", "<f4")


def is_number(column: str) -> bool:
  """Whether a column of predictions holds numbers, by its name."""
  return column.endswith(_NUMBERS)


def encode(rows: Iterable[Sequence[str]]) -> bytes:
  """The lines of rows."""
  lines = io.StringIO()
  csv.writer(lines, lineterminator="\n").writerows(
    [text_lib.escape(field) for field in row] for row in rows
  )
  return lines.getvalue().encode()


def read(file: BinaryIO) -> Iterator[tuple[bytes, list[str] | None]]:
  """Yields the bytes and the fields of each row.

  The fields are None where there are none: of a last row without a line end,
  and of what is no CSV.
  """
  pending, quotes = [], 0
  for line in file:
    pending.append(line)
    quotes += line.count(b'"')
    # A name may hold a line end: it is in quotes then.
    if quotes % 2 or not line.endswith(b"\n"):
      continue
    raw = b"".join(pending)
    pending.clear()
    yield raw, _fields(raw)
  if pending:
    yield b"".join(pending), None


def _fields(raw: bytes) -> list[str] | None:
  try:
    found = next(csv.reader(io.StringIO(raw.decode(**_TEXT), newline="")), [])
  except csv.Error:
    return None
  return [text_lib.unescape(field) for field in found]


@dataclasses.dataclass
class Contents:
  """What a file of predictions holds.

  Attributes:
    names: of the images of its complete rows.
    end: bytes up to the end of these rows, if nothing is `wrong`; 0: there
      is no header.
    wrong: why it cannot be appended to as it is; "": it can.
  """

  names: set[str]
  end: int = 0
  wrong: str = ""


def inspect(
  file: BinaryIO,
  header: Sequence[str],
  images: Collection[str],
  *,
  strict: bool = False,
) -> Contents:
  """Finds the rows of a file, and whether all else is an unfinished row.

  Args:
    file: at its start.
    header: names of the columns.
    images: names of those that a row may be of that a crash has cut off.
    strict: whether each number and embedding must be one.
  """
  found = Contents(set())
  for place, (raw, fields) in enumerate(read(file), 1):
    if place == 1:
      if fields == list(header):
        found.end = len(raw)
        continue
      if raw.startswith(codecs.BOM_UTF8) and _fields(raw[3:]) == list(header):
        found.end, found.wrong = len(raw), "a byte order mark is before it"
        continue
      # A header of which the crash has left a part has no row below it.
      if not encode([header]).startswith(raw.rstrip(b"\0")):
        found.wrong = "its first row is not the header"
      return found
    if not is_row(fields, header, strict=strict):
      if not _is_unfinished(raw, header, images):
        found.wrong = found.wrong or f"row {place} is not as it was written"
      continue
    found.names.add(fields[0])
    found.end += len(raw)
    if not found.wrong and not _is_utf8(raw):
      found.wrong = f"row {place} is not UTF-8"
  return found


def is_row(
  fields: list[str] | None, header: Sequence[str], *, strict: bool = False
) -> TypeGuard[list[str]]:
  """Whether fields are those of the columns."""
  if not fields or not fields[0] or len(fields) != len(header):
    return False
  return not strict or all(
    _is_value(name, field) for name, field in zip(header, fields, strict=True)
  )


def rows(
  file: BinaryIO, header: Sequence[str], *, strict: bool = False
) -> Iterator[list[str]]:
  """Yields the complete rows below the header."""
  for _, fields in itertools.islice(read(file), 1, None):
    if is_row(fields, header, strict=strict):
      yield fields


def _is_unfinished(
  raw: bytes, header: Sequence[str], images: Collection[str]
) -> bool:
  """Whether bytes are the beginning of a row of one of the images.

  A row that lacks its line end only is none: somebody may have changed it.
  """
  # After a power failure, some file systems show zeros at the end.
  raw = raw.rstrip(b"\0")
  fields = _fields(raw)
  if not fields:
    return not raw
  *complete, last = fields
  if not complete:
    return any(encode([[name, ""]]).startswith(raw) for name in images)
  columns = header[: len(complete)]
  return (
    len(fields) < len(header)
    and complete[0] in images
    # A quote too many takes in the rows below.
    and "\n" not in "".join((*complete[1:], last))
    and not raw.endswith(b"\n")
    and is_row(complete, columns, strict=True)
    and (
      not is_number(header[len(complete)])
      or re.fullmatch(r"[-+.0-9e]*", last) is not None
    )
  )


def _is_value(column: str, field: str) -> bool:
  """Whether a field is of the kind that the name of its column says."""
  try:
    if is_number(column):
      float(field)
    elif column == EMBEDDING:
      decode_vector(field)
  except ValueError:
    return False
  return True


def _is_utf8(raw: bytes) -> bool:
  try:
    raw.decode()
  except UnicodeDecodeError:
    return False
  return True


@contextlib.contextmanager
def replacement(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives the path of a file that takes the place of another when complete.

  After an exception the other is as it was, and nothing is left beside it.

  Args:
    path: of the file to replace; it need not exist.
  """
  temporary = path.with_name(f".{path.name}.tmp")
  try:
    yield temporary
    os.replace(temporary, path)
  finally:
    temporary.unlink(missing_ok=True)
