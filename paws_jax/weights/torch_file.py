"""Reads files of `torch.save` without PyTorch.

It reads both formats: the zip archive of PyTorch 1.6 and later (the public PAWS
checkpoints), and the older sequence of pickles and storages, which
`_use_new_zipfile_serialization=False` still writes (many published ResNets).
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import struct
import zipfile
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import BinaryIO

import ml_dtypes
import numpy as np

from paws_jax import errors
from paws_jax.weights import lazy_arrays
from paws_jax.weights import pickles

# Allowed classes of storages and their dtypes, little-endian.
_DTYPES = {
  "DoubleStorage": np.dtype("<f8"),
  "FloatStorage": np.dtype("<f4"),
  "HalfStorage": np.dtype("<f2"),
  "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
  "LongStorage": np.dtype("<i8"),
  "IntStorage": np.dtype("<i4"),
  "ShortStorage": np.dtype("<i2"),
  "CharStorage": np.dtype("i1"),
  "ByteStorage": np.dtype("u1"),
  "BoolStorage": np.dtype("?"),
}
_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_AXES = 32
# Elements of the other axes where one has none: numpy multiplies their sizes.
_MAX_EMPTY = 2**40

# Reads the bytes of a storage by its key.
_Storages = Callable[[str], bytes]


@contextlib.contextmanager
def open_torch(file: BinaryIO) -> Iterator[Any]:
  """Opens a .pth, .pth.tar or .pt file.

  Args:
    file: seekable file, open for reading in binary mode.

  Yields:
    The contents: dicts, lists, numbers and strings. A tensor is a
    `StoredArray`, to be read before the context ends; objects that are not
    needed are `pickles.Inert`.

  Raises:
    WeightsError: the file has another format, is damaged or truncated, or asks
      for an operation that no file of tensors needs; names the reason.
  """
  if _is_zip(file):
    with _archive(file) as archive:
      yield _read_archive(archive)
  else:
    file.seek(0)
    yield _read_legacy(file)


def _is_zip(file: BinaryIO) -> bool:
  try:
    return zipfile.is_zipfile(file)
  except lazy_arrays.ZIP_ERRORS as error:
    lazy_arrays.raise_damaged(error)


@contextlib.contextmanager
def _archive(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
  """Opens the zip archive; raises errors of zipfile as WeightsError."""
  size = file.seek(0, os.SEEK_END)
  try:
    with zipfile.ZipFile(file) as archive:
      entries = archive.infolist()
      # Bit 0: encrypted.
      odd = [e for e in entries if e.compress_type or e.flag_bits & 1]
      if odd:
        raise errors.WeightsError(
          f"its entry {odd[0].filename} is compressed or encrypted, unlike "
          "those of PyTorch"
        )
      # Overlapping entries would make a small file expand to a huge one.
      total = sum(e.file_size for e in entries)
      if total > size:
        raise errors.WeightsError(
          f"its entries claim {total} bytes, but the file has {size}"
        )
      yield archive
  except lazy_arrays.ZIP_ERRORS as error:
    lazy_arrays.raise_damaged(error)


def _read_archive(archive: zipfile.ZipFile) -> Any:
  names = set(archive.namelist())
  pickled = [name for name in names if name.endswith("/data.pkl")]
  if len(pickled) != 1:
    raise errors.WeightsError(
      "it is a zip archive, but not one of torch.save: it has "
      f"{len(pickled)} entries data.pkl"
    )
  folder = pickled[0].removesuffix("data.pkl")
  order = f"{folder}byteorder"
  if order in names and archive.read(order).strip() != b"little":
    raise errors.WeightsError("its numbers are big-endian")

  def read(key: str) -> bytes:
    return archive.read(f"{folder}data/{key}")

  def check(storage: _Storage) -> None:
    entry = f"{folder}data/{storage.key}"
    if entry not in names:
      raise errors.WeightsError(f"its entry {entry} is missing")
    _check_size(storage, archive.getinfo(entry).file_size)

  return _load(archive.read(pickled[0]), read, check)


def _read_legacy(file: BinaryIO) -> Any:
  """Reads the pickles magic, protocol, system, object, keys; then storages."""
  header = [_plain(file) for _ in range(3)] if _starts_legacy(file) else [None]
  if header[:2] != [_MAGIC, _LEGACY_PROTOCOL]:
    raise errors.WeightsError(
      "it is neither of the formats of torch.save (a zip archive, or pickles "
      "that start with a magic number)"
    )
  if not isinstance(header[2], dict) or not header[2].get("little_endian"):
    raise errors.WeightsError("its numbers are big-endian")
  pickled = pickles.read_pickle(file)
  keys = _plain(file)
  sizes: dict[str, _Storage] = {}
  places: dict[str, tuple[int, int]] = {}

  def check(storage: _Storage) -> None:
    known = sizes.setdefault(storage.key, storage)
    _check_size(storage, known.num_elements * known.dtype.itemsize)

  def read(key: str) -> bytes:
    start, num_bytes = places[key]
    file.seek(start)
    return file.read(num_bytes)

  tree = _load(pickled, read, check)
  if (
    not isinstance(keys, list)
    or not all(isinstance(key, str) for key in keys)
    or set(keys) != set(sizes)
  ):
    raise errors.WeightsError("its list of storages is damaged")
  places |= _legacy_places(file, [sizes[key] for key in keys])
  return tree


def _starts_legacy(file: BinaryIO) -> bool:
  """Whether a file starts with the first pickle, unlike text or HTML."""
  first = file.read(3)
  file.seek(0)
  return first[:1] == b"\x80" and first[2:3] == b"\x8a"


def _plain(file: BinaryIO) -> Any:
  return pickles.load(pickles.read_pickle(file), names={})


def _legacy_places(
  file: BinaryIO, storages: list[_Storage]
) -> dict[str, tuple[int, int]]:
  """Returns (position, bytes) of each storage, checked against the file."""
  position = file.tell()
  end = file.seek(0, os.SEEK_END)
  places = {}
  for storage in storages:
    num_bytes = storage.num_elements * storage.dtype.itemsize
    file.seek(position)
    stored = file.read(8)
    position += 8
    if len(stored) < 8 or position + num_bytes > end:
      raise errors.WeightsError(
        f"it is truncated: storage {storage.key} has {num_bytes} bytes, but "
        f"{max(end - position, 0)} are left"
      )
    if struct.unpack("<q", stored)[0] != storage.num_elements:
      raise errors.WeightsError(
        f"storage {storage.key} has {struct.unpack('<q', stored)[0]} elements, "
        f"but {storage.num_elements} in the pickle"
      )
    places[storage.key] = (position, num_bytes)
    position += num_bytes
  return places


class _Storage:
  """A sequence of elements in the file, of which tensors are views."""

  __slots__ = ("dtype", "key", "num_elements")

  def __init__(self, dtype: np.dtype, key: str, num_elements: int):
    self.dtype, self.key, self.num_elements = dtype, key, num_elements

  def __setstate__(self, state: Any) -> None:
    """Refuses attributes that a pickle sets."""
    raise errors.WeightsError("a pickle sets a storage's attributes")


def _check_size(storage: _Storage, num_bytes: int) -> None:
  wanted = storage.num_elements * storage.dtype.itemsize
  if wanted != num_bytes:
    raise errors.WeightsError(
      f"storage {storage.key} should have {wanted} bytes, but has {num_bytes}"
    )


def _load(
  pickled: bytes, read: _Storages, check: Callable[[_Storage], None]
) -> Any:
  """Reads the pickle of the tensors, without their storages."""
  # All tensors may be views of one storage.
  read = functools.lru_cache(maxsize=1)(read)

  def storage(pid: Any) -> _Storage:
    made = _storage(pid)
    check(made)
    return made

  def tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *unused: Any
  ) -> lazy_arrays.StoredArray:
    return _tensor(read, storage, offset, size, stride)

  def parameter(data: Any, *unused: Any) -> Any:
    return data

  names = {
    **{("torch", name): (name,) for name in _DTYPES},
    ("torch._utils", "_rebuild_tensor"): tensor,
    ("torch._utils", "_rebuild_tensor_v2"): tensor,
    ("torch._utils", "_rebuild_parameter"): parameter,
  }
  return pickles.load(pickled, names=names, persistent=storage)


def _storage(pid: Any) -> _Storage:
  """Parses ("storage", class, key, device, number of elements[, view])."""
  if not isinstance(pid, tuple) or len(pid) not in (5, 6):
    raise errors.WeightsError("it refers to storages in an unknown way")
  kind, name, key, _, num_elements = pid[:5]
  if pid[5:] not in ((), (None,)):
    raise errors.WeightsError(
      "its storages are views of others, as PyTorch before 0.4 wrote them"
    )
  if (
    kind != "storage"
    or not isinstance(name, tuple)
    or len(name) != 1
    or not isinstance(name[0], str)
    or name[0] not in _DTYPES
    or not isinstance(key, str)
    or type(num_elements) is not int
    or num_elements < 0
  ):
    raise errors.WeightsError("it refers to storages in an unknown way")
  return _Storage(_DTYPES[name[0]], key, num_elements)


def _tensor(
  read: _Storages, storage: Any, offset: Any, size: Any, stride: Any
) -> lazy_arrays.StoredArray:
  """Makes a view of a storage, checked against its size, without reading."""
  fits = (
    isinstance(storage, _Storage)
    and lazy_arrays.is_shape((offset,))
    and lazy_arrays.is_shape(size)
    and lazy_arrays.is_shape(stride)
    and len(size) == len(stride) <= _MAX_AXES
  )
  if not fits:
    raise errors.WeightsError("one of its tensors has no valid shape")
  size, stride = tuple(size), tuple(stride)
  num_elements = lazy_arrays.num_bytes(size, np.dtype("u1"))
  # The stride of an axis of one element says nothing, but numpy multiplies it.
  stride = tuple(0 if n == 1 else s for n, s in zip(size, stride, strict=True))
  last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
  # A view may repeat elements: then its size would have no limit.
  if (
    num_elements > storage.num_elements
    or (num_elements and last >= storage.num_elements)
    or math.prod(filter(None, size)) > max(storage.num_elements, _MAX_EMPTY)
  ):
    raise errors.WeightsError(
      f"a tensor of shape {size}, strides {stride} and offset {offset} does "
      f"not fit into storage {storage.key} of {storage.num_elements} elements"
    )
  dtype = storage.dtype

  def view() -> np.ndarray:
    if not num_elements:
      return np.zeros(size, dtype)
    elements = np.frombuffer(read(storage.key), dtype)
    # A view must not reach beyond the end of the array.
    if len(elements) != storage.num_elements:
      raise errors.WeightsError(f"storage {storage.key} is truncated")
    strides = tuple(s * dtype.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(elements[offset:], size, strides)

  return lazy_arrays.StoredArray(size, dtype, view)
