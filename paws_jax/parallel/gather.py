"""One all-gather for several arrays of embeddings."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def gather(
  learned: Sequence[jax.Array],
  constants: Sequence[jax.Array] = (),
  *,
  axis_name: Any,
) -> tuple[jax.Array, ...]:
  """Gathers the rows of several arrays from all devices at once.

  Args:
    learned: [n_i, D] each, the rows of this device.
    constants: [m_i, D] each; they get no gradient, and none is communicated.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    The arrays in order, learned ones first; the rows of each array are those of
    the first device, then those of the second, and so on.
  """
  constants = jax.lax.stop_gradient(tuple(constants))
  if axis_name is None:
    return (*learned, *constants)
  if not learned:
    learned, constants = constants, ()
  num_rows = tuple(array.shape[0] for array in learned)
  return _gather(axis_name, num_rows, tuple(learned), constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(
  axis_name: Any,
  num_rows: tuple[int, ...],
  learned: tuple[jax.Array, ...],
  constants: tuple[jax.Array, ...],
) -> tuple[jax.Array, ...]:
  """Concatenates the arrays, so that one all-gather suffices."""
  del num_rows
  arrays = (*learned, *constants)
  rows = jax.lax.all_gather(jnp.concatenate(arrays), axis_name)
  parts = _split(rows, [array.shape[0] for array in arrays], axis=1)
  return tuple(part.reshape(-1, part.shape[-1]) for part in parts)


def _forward(
  axis_name: Any,
  num_rows: tuple[int, ...],
  learned: tuple[jax.Array, ...],
  constants: tuple[jax.Array, ...],
) -> tuple[tuple[jax.Array, ...], None]:
  return _gather(axis_name, num_rows, learned, constants), None


def _backward(
  axis_name: Any,
  num_rows: tuple[int, ...],
  unused_residual: None,
  gradients: tuple[jax.Array, ...],
) -> tuple[tuple[jax.Array, ...], tuple[None, ...]]:
  """The transpose, without the parts that would communicate zeros."""
  by_device = [
    gradient.reshape(-1, count, gradient.shape[-1])
    for gradient, count in zip(gradients, num_rows, strict=False)
  ]
  rows = jnp.concatenate(by_device, axis=1)
  rows = rows.reshape(-1, rows.shape[-1])
  rows = jax.lax.psum_scatter(rows, axis_name, tiled=True)
  # None stands for zeros.
  num_constants = len(gradients) - len(num_rows)
  return tuple(_split(rows, num_rows, axis=0)), (None,) * num_constants


_gather.defvjp(_forward, _backward)


def _split(
  rows: jax.Array, counts: Sequence[int], *, axis: int
) -> list[jax.Array]:
  """Splits rows into parts of these lengths."""
  ends = list(itertools.accumulate(counts))
  return jnp.split(rows, ends[:-1], axis=axis)


def by_view(rows: jax.Array, *, num_views: int, num_local: int) -> jax.Array:
  """Reorders gathered views so that the order does not depend on the devices.

  Args:
    rows: [devices · V · b, D], a result of `gather`; view-major on each device.
    num_views: V.
    num_local: b, number of images per device.

  Returns:
    [V, B, D], images in the order of the batch.
  """
  parts = rows.reshape(-1, num_views, num_local, rows.shape[-1])
  return parts.swapaxes(0, 1).reshape(num_views, -1, rows.shape[-1])
