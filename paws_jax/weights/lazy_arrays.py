"""Arrays in an open file, each read on access."""

from __future__ import annotations

import dataclasses
import errno
import math
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from typing import NoReturn

import numpy as np

from paws_jax import errors

# What `zipfile` raises for a damaged archive.
ZIP_ERRORS = (
  zipfile.BadZipFile,
  zlib.error,
  struct.error,
  EOFError,
  NotImplementedError,
  OSError,
  OverflowError,
  ValueError,
)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredArray:
  """An array in an open file; `numpy.asarray` reads it.

  Attributes:
    shape: shape of the array.
    dtype: dtype of the array, also bfloat16 of ml_dtypes.
    read: reads the array.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
    """Reads the array, for `numpy.asarray`."""
    array = self.read()
    return array.astype(dtype or array.dtype, copy=bool(copy))

  def __setstate__(self, state: Any) -> None:
    """Refuses attributes that a pickle sets."""
    raise errors.WeightsError("a pickle sets the attributes of a tensor")


def num_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
  """Returns the size of an array in bytes, without overflow."""
  return math.prod(shape) * dtype.itemsize


def is_shape(value: Any) -> bool:
  """Whether a value is a tuple or list of integers of at least 0."""
  return isinstance(value, (tuple, list)) and all(
    type(size) is int and size >= 0 for size in value
  )


def raise_damaged(error: Exception) -> NoReturn:
  """Raises the error about a damaged archive for one of ZIP_ERRORS."""
  # EINVAL: a position before the start of the file; others are of the disk.
  of_disk = isinstance(error, OSError) and error.errno != errno.EINVAL
  if of_disk or isinstance(error, errors.UserError):
    raise error
  raise errors.WeightsError(f"its archive is damaged: {error}") from error
