"""Mean shift towards nearest members of a memory bank (MSF and CMSF).

A bank holds T batches of B unit rows: row t·B + i is place i of batch t. Spread
over W devices, each holds the places of its own images in every batch,
[T, B/W, D], and nothing of the bank ever moves between devices: only the
targets, the best similarities and the sums of chosen rows do.

References:
  Koohpayegani et al., Mean Shift for Self-Supervised Learning, 2021
  (arXiv 2105.07269); Navaneet et al., Constrained Mean Shift Using Distant Yet
  Related Neighbors, 2022 (arXiv 2112.04607).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity

# Rows of the bank of which the nearest are taken at a time: sorting many rows
# at once is slow on TPUs, and the nearest of all are among those of the blocks.
_BLOCK = 4096


class Newest(NamedTuple):
  """Rows in place of those of one batch of a bank, which is not copied."""

  # [B, ...], this device's.
  rows: jax.Array
  # int scalar, the number t of the batch.
  batch: jax.Array


def nearest_members(
  targets: jax.Array,
  bank: jax.Array,
  *,
  valid: jax.Array,
  k: int,
  allowed: jax.Array | None = None,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Finds the nearest rows of a memory bank, exactly.

  Args:
    targets: [B, D] unit rows, this device's.
    bank: [M, D] unit rows, this device's.
    valid: [M] bool, rows of the bank that may be chosen, this device's.
    k: number of rows to find, at least 1.
    allowed: bool, rows that each target may choose; None: all. [B, M]; with
      `axis_name` the targets of all devices and this device's rows, or this
      device's targets and the rows of all devices.
    axis_name: mesh axes over which targets and bank are spread. The number of
      rows of a device must then be a multiple of that of its targets.

  Returns:
    [B, k] int32 places in the bank, those of all devices in the order of the
    module's docstring; nearest first, lowest place among equals, −1 where there
    are fewer than k. Equal on any number of devices.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  if k < 1:
    raise ValueError(f"k is {k}: it must be at least 1.")
  cosines = bank_cosines(targets, bank, axis_name=axis_name)
  allowed = _own_columns(allowed, cosines.shape, targets.shape[0], axis_name)
  choosable = valid[None, :]
  if allowed is not None:
    choosable &= allowed
  return nearest_by_cosine(
    cosines,
    choosable,
    k=k,
    num_targets=targets.shape[0],
    axis_name=axis_name,
  )


def bank_cosines(
  targets: jax.Array,
  bank: jax.Array,
  *,
  newest: Newest | None = None,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Computes the cosines of the targets of all devices and a bank's rows.

  Args:
    targets: [B, D] unit rows, this device's.
    bank: [M, D] unit rows, this device's.
    newest: rows in place of those of one batch.
    axis_name: mesh axes over which targets and bank are spread.

  Returns:
    [devices · B, M], without gradient.
  """
  similarity.check_dimensions(targets, bank, names=("targets", "bank"))
  targets, bank, newest = jax.lax.stop_gradient((targets, bank, newest))
  if axis_name is not None:
    targets = jax.lax.all_gather(targets, axis_name, tiled=True)
  cosines = similarity.dot_products(targets, bank)
  if newest is None:
    return cosines
  columns = similarity.dot_products(targets, newest.rows)
  first = newest.batch * newest.rows.shape[0]
  return jax.lax.dynamic_update_slice_in_dim(cosines, columns, first, axis=1)


def nearest_by_cosine(
  cosines: jax.Array,
  choosable: jax.Array,
  *,
  k: int,
  num_targets: int,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Finds the nearest rows of a memory bank; see `nearest_members`.

  Args:
    cosines: of `bank_cosines`.
    choosable: bool, of the same shape or [1, M]: rows that may be chosen.
    k: number of rows to find.
    num_targets: targets of this device.
    axis_name: mesh axes over which targets and bank are spread.

  Returns:
    [num_targets, k] int32 places in the bank of all devices.
  """
  cosines, places = _top(jnp.where(choosable, cosines, -jnp.inf), k)
  if axis_name is not None:
    cosines, places = _of_all_devices(cosines, places, num_targets, axis_name)
  places = jnp.where(cosines[:, :k] > -jnp.inf, places[:, :k], -1)
  missing = k - places.shape[1]
  return jnp.pad(places, ((0, 0), (0, max(missing, 0))), constant_values=-1)


def mean_shift_loss(
  queries: jax.Array,
  bank: jax.Array,
  slots: jax.Array | Sequence[jax.Array],
  *,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Computes the mean squared distance of queries and chosen rows of a bank.

  2 − 2⟨query, mean of its rows⟩ (MSF, eq. 1); for several sets of rows the
  mean of their distances (CMSF, eq. 3).

  Args:
    queries: [B, D], this device's; they need not be normalized.
    bank: [M, D] unit rows, this device's; without gradient.
    slots: [B, k] int32 from `nearest_members`, −1 for none, or a list of such.
    axis_name: mesh axes over which queries and bank are spread.

  Returns:
    Scalar in [0, 4], equal on all devices, float32 or wider.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  similarity.check_dimensions(queries, bank, names=("queries", "bank"))
  sets: list[Any] = [slots] if hasattr(slots, "ndim") else list(slots)
  means = [member_means(bank, chosen, axis_name=axis_name) for chosen in sets]
  loss = jnp.mean(jnp.stack([shift_rows(queries, mean) for mean in means]))
  return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def shift_rows(queries: jax.Array, means: jax.Array) -> jax.Array:
  """Computes 2 − 2⟨query, mean⟩ of each row: [B, D], [B, D] -> [B]."""
  means = jax.lax.stop_gradient(means)
  return 2 - 2 * jnp.sum(similarity.normalize(queries) * means, axis=-1)


def member_means(
  bank: jax.Array,
  slots: jax.Array,
  *,
  newest: Newest | None = None,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Averages the chosen rows of a bank for each query.

  Args:
    bank: [M, D], this device's.
    slots: [B, k] int32, places in the bank of all devices; −1 for none.
    newest: rows in place of those of one batch.
    axis_name: mesh axes over which bank and queries are spread.

  Returns:
    [B, D] float32 or wider, without gradient; 0 where no row was chosen.
  """
  bank, newest = jax.lax.stop_gradient((bank, newest))
  counts = jnp.sum(slots >= 0, axis=-1, keepdims=True)
  if axis_name is not None:
    num_queries = slots.shape[0]
    slots = jax.lax.all_gather(slots, axis_name, tiled=True)
    slots = local_places(slots, num_queries, axis_name)
  rows = bank[slots]
  if newest is not None:
    batch, place = jnp.divmod(slots, newest.rows.shape[0])
    fresh = (batch == newest.batch)[..., None]
    rows = jnp.where(fresh, newest.rows[place].astype(rows.dtype), rows)
  rows = jnp.where((slots >= 0)[..., None], rows, 0)
  sums = jnp.sum(similarity.at_least_float32(rows), axis=-2)
  if axis_name is not None:
    sums = jax.lax.psum_scatter(sums, axis_name, tiled=True)
  return sums / jnp.maximum(counts, 1)


def class_means(
  bank: jax.Array,
  tags: jax.Array,
  labels: jax.Array,
  *,
  num_classes: int,
  newest: Newest | None = None,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Averages all rows of a bank that have a query's label, without a search.

  Args:
    bank: [M, D], this device's.
    tags: [M] integers, labels of the rows; negative: none.
    labels: [B] integers in [0, num_classes), labels of this device's queries.
    num_classes: number of classes.
    newest: rows in place of those of one batch; they have the queries' labels.
    axis_name: mesh axes over which bank and queries are spread.

  Returns:
    [B, D] float32 or wider, without gradient; 0 where there is no such row.
  """
  bank, newest = jax.lax.stop_gradient((bank, newest))
  if newest is None:
    sums = _class_sums(bank, tags, num_classes)
  else:
    size = newest.rows.shape[0]
    older = jnp.arange(tags.shape[0]) // size != newest.batch
    sums = _class_sums(bank, jnp.where(older, tags, -1), num_classes)
    sums += _class_sums(newest.rows, labels, num_classes)
  if axis_name is not None:
    sums = jax.lax.psum(sums, axis_name)
  return (sums[:, :-1] / jnp.maximum(sums[:, -1:], 1))[labels]


def _class_sums(
  rows: jax.Array, tags: jax.Array, num_classes: int
) -> jax.Array:
  """Adds up the rows of each class, and counts them: [num_classes, D + 1]."""
  rows = similarity.at_least_float32(rows)
  one_hot = jax.nn.one_hot(tags, num_classes, dtype=rows.dtype)
  sums = similarity.dot_products(one_hot.T, rows.T)
  return jnp.concatenate([sums, jnp.sum(one_hot, axis=0)[:, None]], axis=-1)


def _top(values: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
  """Finds the k largest of [n, M]: values and places, lowest among equals."""
  num_rows = values.shape[1]
  if num_rows <= 2 * _BLOCK:
    return jax.lax.top_k(values, min(k, num_rows))
  num_blocks = -(-num_rows // _BLOCK)
  padding = num_blocks * _BLOCK - num_rows
  blocks = jnp.pad(values, ((0, 0), (0, padding)), constant_values=-jnp.inf)
  blocks = blocks.reshape(-1, num_blocks, _BLOCK)
  best, places = jax.lax.top_k(blocks, min(k, _BLOCK))
  places += jnp.arange(num_blocks)[None, :, None] * _BLOCK
  best, places = (a.reshape(a.shape[0], -1) for a in (best, places))
  best, chosen = jax.lax.top_k(best, min(k, num_rows))
  return best, jnp.take_along_axis(places, chosen, axis=1)


def _of_all_devices(
  cosines: jax.Array,
  places: jax.Array,
  num_targets: int,
  axis_name: similarity.AxisName,
) -> tuple[jax.Array, jax.Array]:
  """Sorts what all devices have found for this device's targets."""
  places = _global_places(places, num_targets, axis_name)
  first = jax.lax.axis_index(axis_name) * num_targets
  cosines, places = (
    jax.lax.dynamic_slice_in_dim(
      jax.lax.all_gather(array, axis_name, axis=1, tiled=True),
      first,
      num_targets,
    )
    for array in (cosines, places)
  )
  negative, places = jax.lax.sort((-cosines, places), num_keys=2)
  return -negative, places


def _own_columns(
  allowed: jax.Array | None,
  shape: tuple[int, ...],
  num_targets: int,
  axis_name: similarity.AxisName,
) -> jax.Array | None:
  """Returns `allowed` of all targets and this device's rows."""
  if allowed is None or allowed.shape == shape:
    return allowed
  num_devices = shape[0] // num_targets
  if allowed.shape != (num_targets, shape[1] * num_devices):
    raise ValueError(
      f"allowed has shape {allowed.shape}: it must be {shape}, one row for "
      "each target and one column for each row of the bank."
    )
  every = jax.lax.all_gather(allowed, axis_name, tiled=True)
  # [targets, T, devices, places]: the columns of a device are not contiguous.
  by_device = every.reshape(shape[0], -1, num_devices, num_targets)
  own = by_device[:, :, jax.lax.axis_index(axis_name)]
  return own.reshape(shape)


def _global_places(
  places: jax.Array, num_targets: int, axis_name: similarity.AxisName
) -> jax.Array:
  """Turns places on this device into places in the bank of all devices."""
  batch, place = jnp.divmod(places, num_targets)
  device = jax.lax.axis_index(axis_name)
  size = jax.lax.axis_size(axis_name)
  return (batch * size + device) * num_targets + place


def local_places(
  slots: jax.Array, num_targets: int, axis_name: similarity.AxisName
) -> jax.Array:
  """The inverse of `_global_places`; −1 for rows of other devices."""
  block, place = jnp.divmod(slots, num_targets)
  batch, device = jnp.divmod(block, jax.lax.axis_size(axis_name))
  own = (slots >= 0) & (device == jax.lax.axis_index(axis_name))
  return jnp.where(own, batch * num_targets + place, -1)
