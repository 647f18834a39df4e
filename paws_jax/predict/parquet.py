"""Predictions as Parquet, which cannot grow: from CSV and back."""

from __future__ import annotations

import contextlib
import csv
import itertools
import os
import pathlib
from collections.abc import Sequence

from paws_jax.predict import csv_rows

_ROWS_AT_ONCE = 65536


def is_number(column: str) -> bool:
  """Whether a column of predictions holds numbers, by its name."""
  return column.endswith(
    ("probability", "weight", "entropy", "novelty", "in_domain")
  )


def from_csv(
  source: pathlib.Path, target: pathlib.Path, header: Sequence[str]
) -> None:
  """Copies rows, block by block."""
  import pyarrow
  from pyarrow import parquet

  schema = pyarrow.schema(
    [
      (name, pyarrow.float32() if is_number(name) else pyarrow.string())
      for name in header
    ]
  )
  temporary = target.with_name(f".{target.name}.tmp")
  with source.open("rb") as file, contextlib.ExitStack() as stack:
    writer = stack.enter_context(parquet.ParquetWriter(temporary, schema))
    rows = (fields for _, fields in csv_rows.complete_rows(file, len(header)))
    next(rows)
    while block := list(itertools.islice(rows, _ROWS_AT_ONCE)):
      arrays = [
        pyarrow.array(
          [float(x) if is_number(name) else _utf8(x) for x in values],
          schema.field(name).type,
        )
        for name, values in zip(header, zip(*block, strict=True), strict=True)
      ]
      writer.write_table(pyarrow.table(arrays, schema=schema))
  os.replace(temporary, target)


def _utf8(text: str) -> str:
  """Other bytes of a file name in a notation: Parquet has UTF-8 only."""
  return text.encode(**csv_rows.TEXT).decode("utf-8", "backslashreplace")


def to_csv(
  source: pathlib.Path, target: pathlib.Path, header: Sequence[str]
) -> None:
  """Copies rows back, so that more can be added."""
  from pyarrow import parquet

  temporary = target.with_name(f".{target.name}.tmp")
  with (
    temporary.open("w", newline="", **csv_rows.TEXT) as file,
    parquet.ParquetFile(source) as rows,
  ):
    table = csv.writer(file, lineterminator="\n")
    table.writerow(header)
    for block in rows.iter_batches():
      for row in zip(*block.to_pydict().values(), strict=True):
        table.writerow(
          [csv_rows.number(x) if isinstance(x, float) else x for x in row]
        )
  os.replace(temporary, target)
