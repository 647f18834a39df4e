"""Embeddings of images as a file: embeddings.npz or .parquet.

An .npz file holds the arrays `names` [n], `embeddings` float32 [n, D], `labels`
[n] ("" where there is none) and `metadata`, a JSON object; none of them is
pickled. A Parquet file has the columns `path`, `embedding` (a fixed-size list)
and `label`, and the JSON object as entry `METADATA` of its schema.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import sys
import zipfile
import zlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import json_text
from paws_jax import packages
from paws_jax import text
from paws_jax.predict import csv_rows
from paws_jax.predict import rows_file
from paws_jax.runs import files

SUFFIXES = (".npz", ".parquet")
METADATA = b"paws_jax"
# The label is last: of a row that a crash has cut off, some is missing.
_HEADER = ("path", csv_rows.EMBEDDING, "label")
_ROWS_AT_ONCE = 4096
# What reading a file that is none, or a damaged one, may raise.
_DAMAGED = (
  ValueError,
  KeyError,
  TypeError,
  AttributeError,
  NotImplementedError,
  OSError,
  EOFError,
  zipfile.BadZipFile,
  zlib.error,
)

Block = tuple[list[str], np.ndarray, list[str]]


@dataclasses.dataclass(frozen=True, eq=False)
class Embeddings:
  """The contents of a file.

  Attributes:
    names: of n images.
    embeddings: float32 [n, D], not normalized.
    labels: of each; "" where it is not known.
    metadata: the classifier, the layer and the images.
  """

  names: tuple[str, ...]
  embeddings: np.ndarray
  labels: tuple[str, ...]
  metadata: Mapping[str, Any]

  def __len__(self) -> int:
    """Number of images."""
    return len(self.names)


class EmbeddingsFile(rows_file.RowsFile):
  """A file of embeddings that is added to; see `rows_file`."""

  outcome = "embedded"

  def __init__(
    self,
    path: pathlib.Path,
    about: Mapping[str, Any],
    *,
    images: Sequence[str],
    labels: Mapping[str, str],
    metadata: Mapping[str, Any],
  ):
    """Opens the file.

    Args:
      path: of `rows_file.check_path`.
      about: which classifier, layer and images.
      images: names of all.
      labels: of those that have one.
      metadata: written into the file, with the number of dimensions.
    """
    self._images, self._labels = frozenset(images), labels
    self._metadata = metadata
    super().__init__(path, _HEADER, about, images=images)

  def _convert(self, source: pathlib.Path, target: pathlib.Path) -> None:
    write = _write_npz if target.suffix == ".npz" else _write_parquet
    names, labels, dimension = [], [], 0
    for name, vector, label in self._rows_of(source):
      names.append(name)
      # Of an image that is not given any more, the former label.
      given = name in self._images
      labels.append(self._labels.get(name, "") if given else label)
      dimension = dimension or len(vector)
      if len(vector) != dimension:
        raise errors.WorkdirError(
          f"{source}: the row of {name!r} has {len(vector)} numbers, and that "
          f"of {names[0]!r} {dimension}: move the file away, and run the "
          "command again."
        )
    metadata = json.dumps({**self._metadata, "dimension": dimension})
    vectors = (vector for _, vector, _ in self._rows_of(source))
    with csv_rows.replacement(target) as path:
      write(path, names, labels, _blocks(vectors), dimension, metadata)

  def _reopen(self, source: pathlib.Path, target: pathlib.Path) -> str:
    try:
      with csv_rows.replacement(target) as path, path.open("wb") as file:
        file.write(csv_rows.encode([_HEADER]))
        for block in _read_blocks(source):
          file.write(csv_rows.encode(rows(*block)))
    except errors.InputError as error:
      return str(error)
    return ""

  def _rows_of(
    self, source: pathlib.Path
  ) -> Iterator[tuple[str, np.ndarray, str]]:
    with source.open("rb") as file:
      for name, vector, label in csv_rows.rows(file, _HEADER, strict=True):
        yield name, csv_rows.decode_vector(vector), label


def rows(
  names: Sequence[str], embeddings: np.ndarray, labels: Sequence[str] = ()
) -> Iterator[list[str]]:
  """Makes the rows of some images."""
  labels = labels or [""] * len(names)
  for name, vector, label in zip(names, embeddings, labels, strict=True):
    yield [name, csv_rows.encode_vector(vector), label]


def read(path: str | os.PathLike[str]) -> Embeddings:
  """Reads a file that `--task=embed` has written.

  Raises:
    MissingFileError: it is not there.
    InputError: it is something else, or damaged.
    MissingPackageError: when pyarrow is missing, for a Parquet file.
  """
  file = files.resolve(path)
  if not file.exists():
    raise errors.MissingFileError(f"{file}: there is no such file.")
  if file.suffix not in SUFFIXES:
    raise errors.InputError(
      f"{file} ends in neither {' nor '.join(SUFFIXES)}: give a file that "
      "--task=embed has written."
    )
  if file.suffix == ".parquet":
    packages.require(str(file), "pyarrow")
  names, vectors, labels = zip(*_read_blocks(file), strict=True)
  return Embeddings(
    names=tuple(itertools.chain(*names)),
    embeddings=np.concatenate(vectors),
    labels=tuple(itertools.chain(*labels)),
    metadata=_read_metadata(file),
  )


def _blocks(vectors: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
  """float32 [m, D], each block of several vectors."""
  while block := list(itertools.islice(vectors, _ROWS_AT_ONCE)):
    yield np.stack(block)


def _write_npz(
  path: pathlib.Path,
  names: list[str],
  labels: list[str],
  blocks: Iterator[np.ndarray],
  dimension: int,
  metadata: str,
) -> None:
  small = {
    "names": np.asarray([text.escape(name) for name in names]),
    "metadata": np.asarray(metadata),
  }
  if any(labels):
    small["labels"] = np.asarray([text.escape(label) for label in labels])
  header = {
    "descr": "<f4",
    "fortran_order": False,
    "shape": (len(names), dimension),
  }
  with zipfile.ZipFile(path, "w") as archive:
    for name, array in small.items():
      with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        np.lib.format.write_array(member, array, allow_pickle=False)
    # Block by block: all may be more than the memory holds.
    with archive.open("embeddings.npy", "w", force_zip64=True) as member:
      np.lib.format.write_array_header_1_0(member, header)
      for block in blocks:
        member.write(block.astype("<f4").tobytes())


def _write_parquet(
  path: pathlib.Path,
  names: list[str],
  labels: list[str],
  blocks: Iterator[np.ndarray],
  dimension: int,
  metadata: str,
) -> None:
  import pyarrow
  from pyarrow import parquet

  fields = {
    "path": pyarrow.string(),
    csv_rows.EMBEDDING: pyarrow.list_(pyarrow.float32(), dimension),
  }
  if any(labels):
    fields["label"] = pyarrow.string()
  schema = pyarrow.schema(fields.items(), {METADATA: metadata.encode()})
  first = 0
  with parquet.ParquetWriter(path, schema) as writer:
    for block in blocks:
      chosen = slice(first, first + len(block))
      columns = [
        [text.escape(name) for name in names[chosen]],
        pyarrow.FixedSizeListArray.from_arrays(block.ravel(), dimension),
        [text.escape(label) or None for label in labels[chosen]],
      ][: len(fields)]
      writer.write_table(pyarrow.table(columns, schema=schema))
      first += len(block)


def _read_blocks(path: pathlib.Path) -> Iterator[Block]:
  """Yields names, embeddings and labels, block by block.

  Raises:
    InputError: the file is something else, or damaged.
  """
  read_blocks = _npz_blocks if path.suffix == ".npz" else _parquet_blocks
  with _reading(path):
    for names, vectors, labels in read_blocks(path):
      if not (0 < len(names) == len(vectors) == len(labels)):
        raise errors.InputError("its columns are empty or of different lengths")
      if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise errors.InputError("its embeddings are not float32 [n, D]")
      yield (
        [text.unescape(name) for name in names],
        vectors,
        [text.unescape(label or "") for label in labels],
      )


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
  """Says of a file that cannot be read what it should be."""
  try:
    files.check_regular(path, most=sys.maxsize)
    yield
  except _DAMAGED as error:
    raise errors.InputError(
      f"{path} is no file of embeddings ({text.printable(error)}): give one "
      "that --task=embed has written."
    ) from None


def _npz_blocks(path: pathlib.Path) -> Iterator[Block]:
  with np.load(path, allow_pickle=False) as arrays:
    names, vectors = arrays["names"].tolist(), arrays["embeddings"]
    labels = arrays["labels"].tolist() if "labels" in arrays else None
  labels = [""] * len(names) if labels is None else labels
  for i in range(0, max(len(names), 1), _ROWS_AT_ONCE):
    chosen = slice(i, i + _ROWS_AT_ONCE)
    yield names[chosen], vectors[chosen], labels[chosen]


def _parquet_blocks(path: pathlib.Path) -> Iterator[Block]:
  from pyarrow import parquet

  with parquet.ParquetFile(path) as file:
    for block in file.iter_batches(_ROWS_AT_ONCE):
      columns = dict(zip(block.schema.names, block.columns, strict=True))
      lists, names = columns[csv_rows.EMBEDDING], columns["path"].to_pylist()
      labels = [""] * len(names)
      if "label" in columns:
        labels = columns["label"].to_pylist()
      vectors = lists.flatten().to_numpy().reshape(len(lists), -1)
      yield names, vectors, labels


def _read_metadata(path: pathlib.Path) -> dict[str, Any]:
  with _reading(path):
    if path.suffix == ".npz":
      with np.load(path, allow_pickle=False) as arrays:
        metadata = arrays["metadata"].item()
    else:
      from pyarrow import parquet

      with parquet.ParquetFile(path) as file:
        metadata = file.schema_arrow.metadata[METADATA]
    return dict(json_text.parse(metadata))
