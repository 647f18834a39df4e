"""Where the images of a file of records lie, and their labels; found once.

TFRECORD files can only be read from their beginning, and labels are needed
before training in any format. So all records are read once, and what was found
is kept in a file, with which an image is read by one `os.pread`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import os
import struct
import tempfile
import time
import zipfile
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import tf_runtime

# Raised when the meaning of a field changes; older files are then rebuilt.
_FORMAT = 2
_KEY_FEATURES = ("file_name", "id")
_SECONDS_BETWEEN_LINES = 10.0
# Reading waits for the disk or the network, which several readers share well.
_NUM_READERS = 8

# Yields (offset of the record in its file, or 0; the record).
Records = Iterable[tuple[int, bytes]]
# Of a file of records: its name, its size in bytes, and when it was last
# changed, in nanoseconds. Data prepared anew may have the same sizes.
Shard = tuple[str, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
  """What is known of n records, in the order in which rows are counted.

  Rows stand in the order of the feature `id` where there is one (as in cifar10,
  whose published lists of labelled images count so), else in that of the files.

  Attributes:
    chunk: int32 [n], in which chunk (of those given to `build`) a record lies.
    record: int64 [n], its number in all chunks together.
    start: int64 [n], where its encoded image begins: from the start of the
      record, plus the offset that came with it.
    size: int64 [n], bytes of the encoded image.
    labels: int32 [n], -1 where it has none.
    keys: name of each image from the features file_name or id, else "".
  """

  chunk: np.ndarray
  record: np.ndarray
  start: np.ndarray
  size: np.ndarray
  labels: np.ndarray
  keys: tuple[str, ...]

  def __len__(self) -> int:
    """Number of records."""
    return len(self.labels)


@dataclasses.dataclass(frozen=True, slots=True)
class _Row:
  """What is read of one record."""

  start: int
  size: int
  label: int
  key: bytes
  id: bytes


def tfrecords(path: str) -> Iterator[tuple[int, bytes]]:
  """Yields the offset and contents of each record of a TFRECORD file.

  A record is its length (uint64), a checksum of that (uint32), the data, and
  a checksum of these (uint32), all little-endian; checksums are not verified.

  Raises:
    ValueError: the file ends within a record.
  """
  total = os.path.getsize(path)
  offset = 0
  with open(path, "rb", buffering=2**20) as file:
    while header := file.read(12):
      length = (
        struct.unpack("<Q", header[:8])[0] if len(header) == 12 else total
      )
      offset += 12
      if length + 4 > total - offset:
        raise errors.InputError(
          f"{path} has {total} bytes, but the record at {offset - 12} asks for "
          "more: the file is damaged or not copied in whole; fetch or prepare "
          "it again"
        )
      yield offset, file.read(length)
      file.seek(4, os.SEEK_CUR)
      offset += length + 4


def read_label(record: bytes) -> int:
  """Returns the label in a record; raises ValueError as `build` does."""
  return _parse(record).label


def build(
  chunks: Sequence[Callable[[], Records]],
  *,
  name: str,
  num_bytes: Sequence[int],
  num_records: int,
) -> RecordIndex:
  """Reads all records once, several chunks at a time; prints how far it is.

  Args:
    chunks: functions that read a part of the records each, in order.
    name: of the data set, for messages.
    num_bytes: size of each chunk, for progress.
    num_records: how many records there should be.

  Raises:
    ValueError: a record that holds no labelled image; or another number of
      records.
  """
  began = told = time.monotonic()
  print(
    f"indexing {name}, once: {num_records:,} records, "
    f"{sum(num_bytes) / 1e9:.1f} GB ...",
    flush=True,
  )

  scan = functools.partial(_scan, name)
  found: list[list[_Row]] = []
  with concurrent.futures.ThreadPoolExecutor(_NUM_READERS) as pool:
    try:
      for rows in pool.map(scan, itertools.count(), chunks):
        found.append(rows)
        if time.monotonic() - told > _SECONDS_BETWEEN_LINES:
          told = time.monotonic()
          done = sum(num_bytes[: len(found)])
          print(
            f"  {done / 1e9:.1f} of {sum(num_bytes) / 1e9:.1f} GB in "
            f"{told - began:.0f} s",
            flush=True,
          )
    except BaseException:
      # Else the rest would be read before the error is seen.
      pool.shutdown(cancel_futures=True)
      raise
  total = sum(map(len, found))
  if total != num_records:
    raise errors.InputError(
      f"{name}: {total} records were found, but its dataset_info.json says "
      f"{num_records}: fetch or prepare the data set again"
    )
  print(f"indexed {total:,} images in {time.monotonic() - began:.0f} s")
  return _from_rows(found)


def _scan(name: str, number: int, chunk: Callable[[], Records]) -> list[_Row]:
  """Reads the records of a chunk."""
  rows = []
  for offset, record in chunk():
    try:
      row = _parse(record)
    except ValueError as error:
      raise errors.InputError(
        f"{name}: record {len(rows)} of part {number} {error}; prepare the "
        "data set again"
      ) from error
    rows.append(dataclasses.replace(row, start=row.start + offset))
  return rows


def _from_rows(found: list[list[_Row]]) -> RecordIndex:
  """Puts the rows of each chunk together, in their final order."""
  rows = [row for chunk in found for row in chunk]
  chunk = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
  # Stable, and all ids are equal where there are none.
  order = sorted(range(len(rows)), key=lambda number: rows[number].id)
  rows = [rows[number] for number in order]
  return RecordIndex(
    chunk=chunk[order].astype(np.int32),
    record=np.asarray(order, np.int64),
    start=np.asarray([row.start for row in rows], np.int64),
    size=np.asarray([row.size for row in rows], np.int64),
    labels=np.asarray([row.label for row in rows], np.int32),
    keys=tuple(row.key.decode("utf-8", "surrogateescape") for row in rows),
  )


def _parse(record: bytes) -> _Row:
  """Reads a serialised tf.train.Example; offsets count from its beginning."""
  from google.protobuf import message

  tf = tf_runtime.load()
  try:
    features = tf.train.Example.FromString(record).features.feature
  except message.DecodeError as error:
    raise errors.InputError(f"is no tf.train.Example ({error})") from error
  if not features["image"].bytes_list.value:
    raise errors.InputError("has no encoded image")
  if not features["label"].int64_list.value:
    raise errors.InputError("has no label")
  image = features["image"].bytes_list.value[0]
  texts = {
    key: _text(features[key])
    for key in _KEY_FEATURES
    if key in features and _text(features[key])
  }
  is_number = "id" in texts and features["id"].int64_list.value
  return _Row(
    start=_find_image(record, image),
    size=len(image),
    label=features["label"].int64_list.value[0],
    key=next(iter(texts.values()), b""),
    # Numbers sort as numbers.
    id=texts["id"].rjust(20, b"0") if is_number else texts.get("id", b""),
  )


def _text(feature: Any) -> bytes:
  """A name, or a number in figures; empty if it is neither."""
  if feature.int64_list.value:
    return b"%d" % feature.int64_list.value[0]
  return next(iter(feature.bytes_list.value), b"")


def _find_image(record: bytes, image: bytes) -> int:
  """Where the image begins; a bytes field is stored as it is.

  Searched for by its beginning: bytes.find prepares itself for a millisecond
  per 100 kB that it looks for.
  """
  start = record.index(image[:64])
  while not record.startswith(image, start):
    start = record.index(image[:64], start + 1)
  return start


def save(path: str, index: RecordIndex, shards: Sequence[Shard]) -> None:
  """Writes an index, all at once; raises OSError where it cannot."""
  keys = [key.encode("utf-8", "surrogateescape") for key in index.keys]
  fields = {
    field.name: getattr(index, field.name)
    for field in dataclasses.fields(index)
    if field.name != "keys"
  }
  handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path), suffix=".npz")
  try:
    with os.fdopen(handle, "wb") as file:
      np.savez(
        file,
        format=np.int64(_FORMAT),
        shards=_shard_lines(shards),
        keys=np.frombuffer(b"".join(keys), np.uint8),
        key_sizes=np.asarray([len(key) for key in keys], np.int64),
        **fields,
      )
    # mkstemp lets nobody else read it, but others may use the data set.
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    raise


def load(path: str, shards: Sequence[Shard]) -> RecordIndex | None:
  """Reads an index; None if there is none of these shards, or it is damaged.

  Args:
    path: of the file that `save` wrote.
    shards: each file of records, as it is now.
  """
  try:
    with np.load(path, allow_pickle=False) as stored:
      if stored["format"] != _FORMAT or not np.array_equal(
        stored["shards"], _shard_lines(shards)
      ):
        return None
      keys = stored["keys"].tobytes()
      ends = np.cumsum(stored["key_sizes"]).tolist()
      names = [field.name for field in dataclasses.fields(RecordIndex)]
      arrays = {name: stored[name] for name in names if name != "keys"}
  except (
    OSError,
    EOFError,
    KeyError,
    ValueError,
    # What zipfile says of some damaged bytes.
    RuntimeError,
    zipfile.BadZipFile,
  ):
    return None
  return RecordIndex(
    keys=tuple(
      keys[start:end].decode("utf-8", "surrogateescape")
      for start, end in zip([0, *ends], ends, strict=False)
    ),
    **arrays,
  )


def _shard_lines(shards: Sequence[Shard]) -> np.ndarray:
  """uint8: what identifies the files that an index was made of."""
  lines = "".join(f"{size} {time} {name}\n" for name, size, time in shards)
  return np.frombuffer(lines.encode("utf-8", "surrogateescape"), np.uint8)
