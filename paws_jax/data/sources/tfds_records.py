"""A prepared TFDS data set whose encoded images are read by index.

array_record and parquet have random access; TFDS keeps a parquet data set in
memory, so that it suits small ones. TFRECORD, the format of most prepared data,
is read through an index of offsets: a second copy of ImageNet would take 147 GB
and hours, the index 60 MB and one pass. All three formats are read once for
their labels.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax.data.sources import catalog
from paws_jax.data.sources import record_index
from paws_jax.data.sources import tfds_builders

_CACHE = os.path.join("~", ".cache", "paws_jax")
_CHUNK_SIZE = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class _IndexedImages:
  """Names and sizes of images, shared by both readers."""

  title: str
  index: record_index.RecordIndex

  def __len__(self) -> int:
    return len(self.index)

  def name(self, index: int) -> str:
    """Returns e.g. "imagenet2012 train: n01440764_10026.JPEG"."""
    return f"{self.title}: {self.key(index)}"

  def key(self, index: int) -> str:
    """Returns the feature file_name or id, or else e.g. "#12"."""
    return self.index.keys[index] or f"#{index}"

  def size(self, index: int) -> int:
    """Returns the number of bytes of the encoded image."""
    return int(self.index.size[index])


@dataclasses.dataclass(frozen=True, eq=False)
class TFRecordImages(_IndexedImages):
  """A `catalog.Reader` of images in TFRECORD files."""

  paths: tuple[str, ...]

  def read(self, index: int) -> bytes:
    """Returns the encoded image; raises OSError naming it."""
    path = self.paths[self.index.chunk[index]]
    size = self.size(index)
    # Opened each time, as ImageNet has as many shards as a process may have
    # open files. Decoding an image costs far more.
    descriptor = os.open(path, os.O_RDONLY)
    try:
      content = os.pread(descriptor, size, int(self.index.start[index]))
    finally:
      os.close(descriptor)
    if len(content) != size:
      raise OSError(
        f"{self.name(index)}: {path} ends within the image: restore the file, "
        "or delete its index if it was prepared again"
      )
    return content


@dataclasses.dataclass(frozen=True, eq=False)
class DataSourceImages(_IndexedImages):
  """A `catalog.Reader` of images in a TFDS data source with random access."""

  source: Sequence[bytes]

  def read(self, index: int) -> bytes:
    """Returns the encoded image; raises OSError naming it."""
    start = int(self.index.start[index])
    try:
      record = self.source[int(self.index.record[index])]
    except (RuntimeError, ValueError, IndexError) as error:
      raise OSError(f"{self.name(index)} cannot be read: {error}") from error
    return bytes(record[start : start + self.size(index)])


def load(
  directory: str, tfds_name: str, *, index_dir: str = ""
) -> catalog.Catalog:
  """Opens a prepared data set of classified images, without downloads.

  The test part is the split test, or validation where there is no test or (as
  in imagenet2012) its labels are not public. Otherwise validation is the val
  part.

  The first call reads all records, and keeps an index beside the data, or in
  ~/.cache/paws_jax where that directory cannot be written. An index belongs to
  files of certain names, sizes and times of change: a copy is read once more.

  Args:
    directory: a prepared data set, or a TFDS data_dir ("" for TFDS' default).
    tfds_name: "name" or "name/config:version"; may be "" when `directory` is
      itself a prepared data set.
    index_dir: another directory for the index.

  Raises:
    FileNotFoundError: the data set is not prepared (the message has the
      command), or a file is missing.
    ValueError: an unknown name or version, other features, an unsupported
      format, or damaged files.
  """
  builder = tfds_builders.open_builder(directory, tfds_name)
  info = builder.info
  tfds_builders.check_features(info.full_name, info.features)
  _check_dtype(builder)
  splits = [name for name, split in info.splits.items() if split.num_examples]
  if not splits:
    raise errors.MissingFileError(tfds_builders.how_to_prepare(builder))
  if "train" not in splits:
    raise errors.InputError(
      f"{info.full_name} has the splits {splits}, but needs train: choose "
      "another data set"
    )
  part = functools.partial(_part, builder, index_dir=index_dir)
  parts: dict[str, Any] = {"train": part("train")}
  held_out = [split for split in ("test", "validation") if split in splits]
  if "test" in held_out and _is_unlabelled(builder, "test"):
    held_out.remove("test")
  for field, split in zip(("test", "val"), held_out, strict=False):
    parts[field] = part(split)
  return catalog.Catalog(
    name=info.full_name,
    class_names=tuple(info.features["label"].names),
    **parts,
  )


def _check_dtype(builder: Any) -> None:
  """Refuses images with other than 8 bits per channel."""
  dtype = np.dtype(builder.info.features["image"].np_dtype)
  if dtype == np.float32:
    raise errors.InputError(
      f"{builder.info.full_name} has images of {dtype}, but needs uint8: "
      "choose another data set"
    )


def _is_unlabelled(builder: Any, split: str) -> bool:
  """Whether the first image of a split has no label."""
  chunks, _ = _chunks(builder, split)
  for chunk in chunks:
    for _, record in chunk():
      return record_index.read_label(record) < 0
  return False


def _part(builder: Any, split: str, *, index_dir: str) -> catalog.Part:
  """Opens a split with its stored index, or with a new one."""
  full_name = builder.info.full_name
  shards = _shards(builder, split)
  files = [_shard(path) for path in shards]
  sizes = [size for _, size, _ in files]
  places = _index_paths(os.fspath(builder.data_path), split, index_dir)
  found = (record_index.load(place, files) for place in places)
  index = next((index for index in found if index is not None), None)
  if index is None:
    chunks, source = _chunks(builder, split)
    index = record_index.build(
      chunks,
      name=f"{full_name} {split}",
      # The chunks of a data source do not correspond to files.
      num_bytes=sizes
      if source is None
      else [sum(sizes) // len(chunks)] * len(chunks),
      num_records=builder.info.splits[split].num_examples,
    )
    _save_index(places, index, files)
  else:
    source = _source(builder, split)
  title = f"{full_name.rpartition('/')[0]} {split}"
  reader = (
    TFRecordImages(title=title, index=index, paths=tuple(shards))
    if source is None
    else DataSourceImages(title=title, index=index, source=source)
  )
  return catalog.Part(images=reader, labels=index.labels)


def _shard(path: str) -> record_index.Shard:
  status = os.stat(path)
  return os.path.basename(path), status.st_size, status.st_mtime_ns


def _shards(builder: Any, split: str) -> list[str]:
  """Returns the paths of the files of a split; refuses missing ones."""
  paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
  if "://" in paths[0]:
    raise errors.InputError(
      f"{builder.info.full_name} lies in {os.path.dirname(paths[0])!r}: images "
      "are read from files one by one: copy the data set to a disk or mount "
      "the bucket, and set data.dir to that directory"
    )
  missing = [path for path in paths if not os.path.isfile(path)]
  if missing:
    raise errors.MissingFileError(
      f"{builder.info.full_name}, split {split}: {len(missing)} of "
      f"{len(paths)} files are missing, the first is {missing[0]!r}: copy the "
      "entire data set, or prepare it again"
    )
  return paths


def _source(builder: Any, split: str) -> Any:
  """Returns a data source of serialized examples; None for TFRECORD."""
  import tensorflow_datasets as tfds

  file_format = builder.info.file_format.value
  match file_format:
    case "tfrecord":
      return None
    case "array_record" | "parquet":
      return builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
      )
  raise errors.InputError(
    f"{builder.info.full_name} is prepared as {file_format}, but images are "
    "read by index from array_record, parquet or tfrecord; to convert it, "
    + tfds_builders.how_to_convert(builder)
  )


def _chunks(
  builder: Any, split: str
) -> tuple[list[Callable[[], record_index.Records]], Any]:
  """Returns functions that each read some records, and the data source."""
  source = _source(builder, split)
  if source is None:
    paths = _shards(builder, split)
    return [functools.partial(record_index.tfrecords, p) for p in paths], None

  def rows(start: int) -> record_index.Records:
    numbers = list(range(start, min(start + _CHUNK_SIZE, len(source))))
    # Offset 0, since these records are not read by their place in a file.
    return [(0, bytes(record)) for record in source.__getitems__(numbers)]

  starts = range(0, len(source), _CHUNK_SIZE)
  return [functools.partial(rows, start) for start in starts], source


def _index_paths(place: str, split: str, index_dir: str) -> list[str]:
  """Returns possible paths of the index, the preferred one first."""
  place = os.path.realpath(place)
  digest = hashlib.sha256(place.encode("utf-8", "surrogateescape")).hexdigest()
  elsewhere = f"{digest[:16]}.{split}.index.npz"
  if index_dir:
    return [os.path.join(index_dir, elsewhere)]
  return [
    os.path.join(place, f"paws_jax.{split}.index.npz"),
    os.path.join(os.path.expanduser(_CACHE), elsewhere),
  ]


def _save_index(
  places: list[str],
  index: record_index.RecordIndex,
  files: list[record_index.Shard],
) -> None:
  """Saves an index at the first path that can be written."""
  for place in places:
    with contextlib.suppress(OSError):
      os.makedirs(os.path.dirname(place), exist_ok=True)
      record_index.save(place, index, files)
      print(f"saved the index to {place}", flush=True)
      return
  print(
    f"could not save the index to {' or '.join(places)}: the next run will "
    "read all records again",
    flush=True,
  )
