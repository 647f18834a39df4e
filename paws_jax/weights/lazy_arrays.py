"""Arrays of a file that are read when they are asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from paws_jax import errors


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class StoredArray:
  """An array in an open file; `numpy.asarray` reads it.

  Attributes:
    shape: its shape.
    dtype: its dtype, also bfloat16 of ml_dtypes.
    read: reads it.
  """

  shape: tuple[int, ...]
  dtype: np.dtype
  read: Callable[[], np.ndarray]

  def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
    """Reads it, for `numpy.asarray`."""
    array = self.read()
    return array.astype(dtype or array.dtype, copy=bool(copy))

  def __setstate__(self, state: Any) -> None:
    """Refuses what a pickle would set here."""
    raise errors.WeightsError("a pickle sets the attributes of a tensor")


def num_bytes(shape: tuple[int, ...], dtype: np.dtype) -> int:
  """Size of an array; Python's integers do not overflow."""
  return math.prod(shape) * dtype.itemsize


def is_shape(value: Any) -> bool:
  """Whether it is a tuple or list of integers of at least 0."""
  return isinstance(value, (tuple, list)) and all(
    type(size) is int and size >= 0 for size in value
  )
