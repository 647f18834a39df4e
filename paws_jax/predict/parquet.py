"""Predictions as Parquet, which cannot grow: from CSV and back."""

from __future__ import annotations

import itertools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from paws_jax import text
from paws_jax.predict import csv_rows

_ROWS_AT_ONCE = 65536


def from_csv(
  source: pathlib.Path, target: pathlib.Path, header: Sequence[str]
) -> None:
  """Copies rows, block by block."""
  import pyarrow
  from pyarrow import parquet

  schema = pyarrow.schema(
    [
      (
        name,
        pyarrow.float32() if csv_rows.is_number(name) else pyarrow.string(),
      )
      for name in header
    ]
  )
  with (
    csv_rows.replacement(target) as path,
    source.open("rb") as file,
    parquet.ParquetWriter(path, schema) as writer,
  ):
    rows = csv_rows.rows(file, header, strict=True)
    while block := list(itertools.islice(rows, _ROWS_AT_ONCE)):
      arrays = [
        pyarrow.array(
          [
            float(x) if csv_rows.is_number(name) else text.escape(x)
            for x in values
          ],
          schema.field(name).type,
        )
        for name, values in zip(header, zip(*block, strict=True), strict=True)
      ]
      writer.write_table(pyarrow.table(arrays, schema=schema))


def to_csv(
  source: pathlib.Path, target: pathlib.Path, header: Sequence[str]
) -> str:
  """Copies rows back, so that more can be added.

  Returns:
    Why there is nothing to copy: it is no Parquet file of these columns; "":
    the rows are copied.
  """
  import pyarrow
  from pyarrow import parquet

  temporary = target.with_name(f".{target.name}.tmp")
  try:
    with temporary.open("wb") as file, parquet.ParquetFile(source) as rows:
      if rows.schema_arrow.names != list(header):
        return "its columns are others"
      file.write(csv_rows.encode([header]))
      for block in rows.iter_batches():
        for row in zip(*block.to_pydict().values(), strict=True):
          if not _is_row(row, header):
            return f"the row of {row[0]!r} is not as it was written"
          file.write(csv_rows.encode([_fields(row)]))
    os.replace(temporary, target)
  except pyarrow.ArrowException as error:
    return f"it is no Parquet file ({str(error).partition(chr(10))[0]})"
  finally:
    temporary.unlink(missing_ok=True)
  return ""


def _is_row(row: Sequence[Any], header: Sequence[str]) -> bool:
  return all(
    isinstance(value, (float, int) if csv_rows.is_number(name) else str)
    for name, value in zip(header, row, strict=True)
  )


def _fields(row: Sequence[Any]) -> list[str]:
  return [
    text.unescape(x) if isinstance(x, str) else csv_rows.number(x) for x in row
  ]
