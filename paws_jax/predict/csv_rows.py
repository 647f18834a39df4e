"""Rows of a CSV file that is appended to, and that a crash may cut off."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any
from typing import BinaryIO

# File names need not be UTF-8.
TEXT = {"encoding": "utf-8", "errors": "surrogateescape"}


def number(value: Any) -> str:
  """Six significant digits."""
  return f"{float(value):.6g}"


def complete_rows(
  file: BinaryIO, num_columns: int
) -> Iterator[tuple[int, list[str]]]:
  """Yields (end in bytes, fields) up to the first incomplete row."""
  position, pending, quotes = 0, [], 0
  for line in file:
    pending.append(line)
    quotes += line.count(b'"')
    # A name may hold a line end: it is in quotes then.
    if quotes % 2 or not line.endswith(b"\n"):
      continue
    record = b"".join(pending)
    position += len(record)
    pending.clear()
    text = io.StringIO(record.decode(**TEXT), newline="")
    try:
      fields = next(csv.reader(text), [])
    except csv.Error:
      return
    if len(fields) != num_columns:
      return
    yield position, fields
