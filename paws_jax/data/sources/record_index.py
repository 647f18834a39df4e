"""An index of the images and labels in files of records, built once.

A TFRECORD file can only be read from its beginning, and in any format labels
are needed before training. So all records are read once, and the index is kept
in a file; with it one `os.pread` reads an image.
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

# Increased when the meaning of a field changes; older files are then rebuilt.
_FORMAT = 2
_KEY_FEATURES = ("file_name", "id")
_SECONDS_BETWEEN_LINES = 10.0
# Several readers share the disk or network, for which reading waits.
_NUM_READERS = 8

# (offset of the record in its file, or 0; the record).
Records = Iterable[tuple[int, bytes]]
# Name, size in bytes and time of the last change, in nanoseconds, of a file of
# records. Data that are prepared again may have the same sizes.
Shard = tuple[str, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
  """Places and labels of n records, in the order of the rows.

  Rows are in the order of the feature `id` where there is one (as in cifar10,
  to which published lists of labelled images refer), else in that of the files.

  Attributes:
    chunk: int32 [n], number of the chunk, of those given to `build`, that holds
      a record.
    record: int64 [n], number of the record in all chunks together.
    start: int64 [n], start of the encoded image: its place in the record plus
      the offset that the chunk gave.
    size: int64 [n], bytes of the encoded image.
    labels: int32 [n], -1 without a label.
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
  """The fields of one record."""

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
          f"{path} has {total} bytes, but the record at {offset - 12} is "
          "longer: the file is damaged or incomplete; download or prepare it "
          "again"
        )
      yield offset, file.read(length)
      file.seek(4, os.SEEK_CUR)
      offset += length + 4


def read_label(record: bytes) -> int:
  """Returns the label in a record; raises the errors of `build`."""
  return _parse(record).label


def build(
  chunks: Sequence[Callable[[], Records]],
  *,
  name: str,
  num_bytes: Sequence[int],
  num_records: int,
) -> RecordIndex:
  """Reads all records once, several chunks at a time; prints its progress.

  Args:
    chunks: functions that each read a part of the records, in order.
    name: name of the data set, for messages.
    num_bytes: size of each chunk, for the progress.
    num_records: expected number of records.

  Raises:
    ValueError: a record without a labelled image, or another number of
      records.
  """
  start = last_print = time.monotonic()
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
        if time.monotonic() - last_print > _SECONDS_BETWEEN_LINES:
          last_print = time.monotonic()
          done = sum(num_bytes[: len(found)])
          print(
            f"  {done / 1e9:.1f} of {sum(num_bytes) / 1e9:.1f} GB in "
            f"{last_print - start:.0f} s",
            flush=True,
          )
    except BaseException:
      # Otherwise the error would appear after all chunks are read.
      pool.shutdown(cancel_futures=True)
      raise
  total = sum(map(len, found))
  if total != num_records:
    raise errors.InputError(
      f"{name} has {total} records, but {num_records} by its "
      "dataset_info.json: download or prepare the data set again"
    )
  print(f"indexed {total:,} images in {time.monotonic() - start:.0f} s")
  return _from_rows(found)


def _scan(name: str, number: int, chunk: Callable[[], Records]) -> list[_Row]:
  """Reads the records of a chunk."""
  rows: list[_Row] = []
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
  """Joins the rows of all chunks, in their final order."""
  rows = [row for chunk in found for row in chunk]
  chunk = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
  # The sort is stable, and without the feature all ids are equal.
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
  """Parses a serialized tf.train.Example; offsets count from its start."""
  from google.protobuf import message

  tf = tf_runtime.load()
  try:
    features = tf.train.Example.FromString(record).features.feature
  except message.DecodeError as error:
    raise errors.InputError(f"is not a tf.train.Example ({error})") from error
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
  """Returns a name, or a number in digits; empty for neither."""
  if feature.int64_list.value:
    return b"%d" % feature.int64_list.value[0]
  return next(iter(feature.bytes_list.value), b"")


def _find_image(record: bytes, image: bytes) -> int:
  """Returns the offset of an image in its record, which stores it unchanged.

  It searches for the first bytes: `bytes.find` spends a millisecond of
  preparation per 100 kB of its argument.
  """
  start = record.index(image[:64])
  while not record.startswith(image, start):
    start = record.index(image[:64], start + 1)
  return start


def save(path: str, index: RecordIndex, shards: Sequence[Shard]) -> None:
  """Writes an index atomically; raises OSError if that fails."""
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
    # mkstemp makes it readable by one user, but others may use the data set.
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)
  except BaseException:
    with contextlib.suppress(OSError):
      os.unlink(temporary)
    raise


def load(path: str, shards: Sequence[Shard]) -> RecordIndex | None:
  """Reads an index; returns None if it is damaged or of other shards.

  Args:
    path: path of the file that `save` wrote.
    shards: the present files of records.
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
    # zipfile raises it for some damaged bytes.
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
  """Returns the identity of the files of an index as uint8."""
  lines = "".join(f"{size} {time} {name}\n" for name, size, time in shards)
  return np.frombuffer(lines.encode("utf-8", "surrogateescape"), np.uint8)
