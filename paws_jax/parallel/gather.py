"""One all-gather for all embeddings that every device needs."""

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
  """Collects the rows of all devices, of several arrays at once.

  Args:
    learned: [n_i, D] each, of this device.
    constants: [m_i, D] each; no gradient goes through these, and none travels.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    The arrays in their order, learned ones first, with the rows of the first
    device, then those of the second, and so on.
  """
  constants = jax.lax.stop_gradient(tuple(constants))
  if axis_name is None:
    return (*learned, *constants)
  if not learned:
    learned, constants = constants, ()
  num_rows = tuple(array.shape[0] for array in learned)
  return _gather(axis_name, num_rows, tuple(learned), constants)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(axis_name, num_rows, learned, constants):
  """Below each other, so that it is one all-gather."""
  del num_rows
  arrays = (*learned, *constants)
  rows = jax.lax.all_gather(jnp.concatenate(arrays), axis_name)
  parts = _split(rows, [array.shape[0] for array in arrays], axis=1)
  return tuple(part.reshape(-1, part.shape[-1]) for part in parts)


def _forward(axis_name, num_rows, learned, constants):
  return _gather(axis_name, num_rows, learned, constants), None


def _backward(axis_name, num_rows, unused_residual, gradients):
  """The transpose, but for the parts that would carry zeros back."""
  by_device = [
    gradient.reshape(-1, count, gradient.shape[-1])
    for gradient, count in zip(gradients, num_rows, strict=False)
  ]
  rows = jnp.concatenate(by_device, axis=1)
  rows = rows.reshape(-1, rows.shape[-1])
  rows = jax.lax.psum_scatter(rows, axis_name, tiled=True)
  # None: zeros.
  num_constants = len(gradients) - len(num_rows)
  return tuple(_split(rows, num_rows, axis=0)), (None,) * num_constants


_gather.defvjp(_forward, _backward)


def _split(rows, counts, *, axis):
  """Parts of so many rows each."""
  ends = list(itertools.accumulate(counts))
  return jnp.split(rows, ends[:-1], axis=axis)


def by_view(rows: jax.Array, *, num_views: int, num_local: int) -> jax.Array:
  """Puts gathered views in an order that does not depend on the devices.

  Args:
    rows: [devices · V · b, D] of `gather`, on each device view-major.
    num_views: V.
    num_local: b, images of a device.

  Returns:
    [V, B, D], images in the order of the batch.
  """
  parts = rows.reshape(-1, num_views, num_local, rows.shape[-1])
  return parts.swapaxes(0, 1).reshape(num_views, -1, rows.shape[-1])
