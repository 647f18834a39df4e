"""Opens files of weights in the formats of PyTorch, safetensors and NumPy."""

from __future__ import annotations

import contextlib
import io
import math
import os
import pathlib
import zipfile
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from paws_jax import errors
from paws_jax.weights import lazy_arrays
from paws_jax.weights import torch_file

# The dtypes of safetensors; weights may have those with a point.
_SAFETENSORS = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": np.dtype(ml_dtypes.bfloat16),
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U64": np.dtype("<u8"),
  "U32": np.dtype("<u4"),
  "U16": np.dtype("<u2"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}
_NPY_HEADERS: dict[tuple[int, int], Callable[[Any], Any]] = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
}
# Weights hardly compress: an npz of a larger ratio is refused as an attack.
_MAX_COMPRESSION = 32
_FREE_BYTES = 2**26
# Elements of the other axes where one has none: numpy multiplies their sizes.
_MAX_EMPTY = 2**40


@contextlib.contextmanager
def open_weights(path: str | os.PathLike[str]) -> Iterator[Any]:
  """Opens a file of weights.

  Args:
    path: path on a local disk of a file in the format safetensors, an .npz
      file, or any file that `torch.save` has written.

  Yields:
    Dicts, lists and so on with `StoredArray`s, which must be read before the
    context ends. A .safetensors or .npz file is one dict by name.

  Raises:
    FileNotFoundError: the file does not exist.
    WeightsError: the file is damaged, truncated or unsafe; names it.
    OSError: the file cannot be read.
  """
  local = pathlib.Path(path).expanduser()
  if not local.is_file():
    raise errors.MissingFileError(
      f"{path}: there is no such file on a local disk; pipes and devices are "
      "not read."
    )
  try:
    if local.suffix == ".safetensors" or _is_safetensors(local):
      with _safetensors(local) as arrays:
        yield arrays
    else:
      read = _npz if local.suffix == ".npz" else torch_file.open_torch
      with open(local, "rb") as file, read(file) as tree:
        yield tree
  except errors.WeightsError as error:
    if str(local) in str(error):
      raise
    raise errors.WeightsError(
      f"{local} is not used: {error}. If you trust the file, load it where "
      "it was made and save its state dict alone, as safetensors."
    ) from error


def _is_safetensors(path: pathlib.Path) -> bool:
  """Whether a file begins with the header of safetensors, whatever its name."""
  with open(path, "rb") as file:
    start = file.read(9)
  length = int.from_bytes(start[:8], "little")
  return start[8:] == b"{" and 8 + length <= path.stat().st_size


@contextlib.contextmanager
def _safetensors(
  path: pathlib.Path,
) -> Iterator[dict[str, lazy_arrays.StoredArray]]:
  try:
    import safetensors
  except ImportError:
    raise errors.WeightsError(
      f"{path} needs the package safetensors: pip install safetensors"
    ) from None

  def stored(file: Any, name: str) -> lazy_arrays.StoredArray:
    described = file.get_slice(name)
    kind = described.get_dtype()
    return lazy_arrays.StoredArray(
      tuple(described.get_shape()),
      _SAFETENSORS.get(kind, np.dtype(object)),
      lambda: file.get_tensor(name),
    )

  # The package checks shapes and offsets against the size of the file.
  try:
    with safetensors.safe_open(path, framework="np") as file:
      yield {name: stored(file, name) for name in file.keys()}  # noqa: SIM118
  except safetensors.SafetensorError as error:
    raise errors.WeightsError(f"it is damaged: {error}") from error


@contextlib.contextmanager
def _npz(file: Any) -> Iterator[dict[str, lazy_arrays.StoredArray]]:
  """Opens an npz; `numpy.load` would allocate any size that a header claims."""
  size = file.seek(0, os.SEEK_END)
  try:
    with zipfile.ZipFile(file) as archive:
      total = sum(entry.file_size for entry in archive.infolist())
      if total > _MAX_COMPRESSION * size + _FREE_BYTES:
        raise errors.WeightsError(
          f"it has {size} bytes and claims to unpack to {total}"
        )
      yield _entries(archive)
  except lazy_arrays.ZIP_ERRORS as error:
    lazy_arrays.raise_damaged(error)


def _entries(
  archive: zipfile.ZipFile,
) -> dict[str, lazy_arrays.StoredArray]:
  """Opens each entry; refuses those of one name, and packings of others."""
  arrays = {}
  for entry in archive.infolist():
    name = entry.filename.removesuffix(".npy")
    if name in arrays:
      raise errors.WeightsError(f"two of its entries are called {name[:100]}")
    # Bit 0: encrypted.
    packings = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if entry.compress_type not in packings or entry.flag_bits & 1:
      raise errors.WeightsError(
        f"its entry {name[:100]} is encrypted, or packed as numpy does not"
      )
    arrays[name] = _npy(archive, entry.filename)
  return arrays


def _npy(archive: zipfile.ZipFile, name: str) -> lazy_arrays.StoredArray:
  """Opens an entry, and checks its header against its size."""
  try:
    with archive.open(name) as entry:
      version = np.lib.format.read_magic(entry)
      shape, fortran, dtype = _NPY_HEADERS[version](entry)
      start = entry.tell()
  # The header is an expression of Python, which may fail in any way.
  except OSError:
    raise
  except Exception as error:
    raise errors.WeightsError(
      f"its entry {name[:100]} is not an array: {str(error)[:200]}"
    ) from error
  left = archive.getinfo(name).file_size - start
  if (
    dtype.hasobject
    or not lazy_arrays.is_shape(shape)
    or lazy_arrays.num_bytes(shape, dtype) != left
    or math.prod(filter(None, shape)) > max(left, _MAX_EMPTY)
  ):
    raise errors.WeightsError(
      f"its entry {name} claims the shape {shape} of {dtype}, but has {left} "
      "bytes"
    )

  def read() -> np.ndarray:
    content = io.BytesIO(archive.read(name)).getbuffer()[start:]
    flat = np.frombuffer(content, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")

  return lazy_arrays.StoredArray(shape, dtype, read)
