"""Batch normalization over the global batch, with masks and groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

AxisName = str | tuple[str, ...] | None


@dataclasses.dataclass(frozen=True)
class LayerSettings:
  """Settings shared by all layers of an encoder.

  Attributes:
    momentum: weight of the old value in running statistics.
    dtype: dtype of activations.
    param_dtype: dtype of parameters and running statistics.
    axis_name: mesh axes over which BatchNorm shares its statistics.
    group_axis_name: mesh axes of BatchNorm groups, see `BatchNorm`.
    num_groups: BatchNorm groups of a device, see `BatchNorm`.
  """

  momentum: float
  dtype: Any
  param_dtype: Any
  axis_name: AxisName = None
  group_axis_name: AxisName = None
  num_groups: int = 1

  @property
  def output_dtype(self) -> Any:
    """Dtype of the output of an encoder, at least float32."""
    return jnp.promote_types(self.dtype, jnp.float32)

  def batch_norm(self, name: str, **overrides: Any) -> BatchNorm:
    """Makes a `BatchNorm` with these settings and `overrides`."""
    settings = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
    }
    return BatchNorm(**(settings | overrides), name=name)


class BatchNorm(nn.Module):
  """Normalizes each channel with statistics of the global batch.

  Unlike `flax.linen.BatchNorm` it weighs devices by their number of unmasked
  rows, supports groups under `jax.shard_map(check_vma=True)`, and stores the
  unbiased running variance, as PyTorch does. (Ioffe and Szegedy,
  "Batch Normalization", 2015; the batch normalizes with its biased variance.)

  Under plain `jax.jit` with a sharded batch `axis_name` must be None: sums over
  the batch are already global. Inside `jax.shard_map` name the mesh axes
  of the batch; each call then costs one all-reduce of 2C + 1 numbers forward
  and one backward.

  Parameters `scale` and `bias` [C]; collection "batch_stats" `mean` and `var`
  [C]. The statistics are updated when `train` and the collection is mutable.

  Attributes:
    momentum: weight of the old value in a running statistic, in [0, 1).
    epsilon: added to the variance.
    dtype: dtype of the output; None: the input's.
    param_dtype: dtype of parameters and running statistics.
    axis_name: mesh axes over which statistics are shared in training; None:
      statistics are those of the local rows.
    group_axis_name: further mesh axes of the batch, over which statistics are
      not shared: each group is normalized separately. Running statistics are
      averaged over the groups, so that all devices agree.
    num_groups: equal runs of a device's rows that are groups of their own.
    affine: whether there are `scale` and `bias`.
    scale_init: initializer of `scale`.
  """

  momentum: float = 0.9
  epsilon: float = 1e-5
  dtype: Any = None
  param_dtype: Any = jnp.float32
  axis_name: AxisName = None
  group_axis_name: AxisName = None
  num_groups: int = 1
  affine: bool = True
  scale_init: Callable[..., jax.Array] = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: jax.Array, *, train: bool, mask: jax.Array | None = None
  ) -> jax.Array:
    """Normalizes `x`.

    Args:
      x: [n, ..., C] of any float dtype.
      train: whether to use the statistics of the batch and update the running
        ones, or to use the running ones.
      mask: [n] bool, False for rows excluded from the statistics, even if they
        hold NaN; None: all rows are included.

    Returns:
      [n, ..., C] in `dtype`. Masked rows are normalized like the others.

    Raises:
      ValueError: if `x` has fewer than two axes, `mask` is not [n], or n is no
        multiple of the number of groups.
    """
    if x.ndim < 2:
      raise ValueError(f"x must be [n, ..., C], got shape {x.shape}")
    if mask is not None and mask.shape != x.shape[:1]:
      raise ValueError(
        f"mask must have one entry per row of x: mask {mask.shape}, x {x.shape}"
      )
    shape = x.shape[-1:]
    scale, bias = self._scale_and_bias(shape)
    running_mean = self.variable(
      "batch_stats", "mean", jnp.zeros, shape, self.param_dtype
    )
    running_var = self.variable(
      "batch_stats", "var", jnp.ones, shape, self.param_dtype
    )
    mean, var = running_mean.value, running_var.value
    # At least float32, whatever the activations are.
    stats_dtype = jnp.promote_types(
      jnp.promote_types(x.dtype, self.param_dtype), jnp.float32
    )
    if train:
      # No axis is bound during the initialization of parameters.
      axes = () if self.is_initializing() else _as_tuple(self.axis_name)
      shift = jax.lax.stop_gradient(mean.astype(stats_dtype))
      # Neither are there groups, since one image is enough for it.
      groups = 1 if self.is_initializing() else self.num_groups
      sums = _group_sums(x.astype(stats_dtype), shift, mask, groups)
      if axes:
        sums = jax.lax.psum(sums, axes)  # The all-reduce of this layer.
      updates = self.is_mutable_collection("batch_stats")
      if updates and not self.is_initializing():
        self._update(running_mean, running_var, sums, shift)
      if axes:
        # One cast for all: otherwise the gradients of mean and variance would
        # take two all-reduces.
        sums = jax.lax.pcast(sums, axes, to="varying")
      mean, var, _ = _moments(sums, shift)
    y = _normalize_groups(
      x.astype(stats_dtype),
      *(v.astype(stats_dtype) for v in (mean, var + self.epsilon, scale, bias)),
    )
    return y.astype(self.dtype or x.dtype)

  def _scale_and_bias(
    self, shape: tuple[int, ...]
  ) -> tuple[jax.Array, jax.Array]:
    """Returns the parameters, or what stands for them without any."""
    if not self.affine:
      return jnp.ones(shape), jnp.zeros(shape)
    return (
      self.param("scale", self.scale_init, shape, self.param_dtype),
      self.param("bias", nn.initializers.zeros, shape, self.param_dtype),
    )

  def _update(
    self,
    running_mean: nn.Variable[jax.Array],
    running_var: nn.Variable[jax.Array],
    sums: jax.Array,
    shift: jax.Array,
  ) -> None:
    """Updates the running statistics from `_local_sums` of the batch."""
    batch_mean, batch_var, any_row = _running_update(
      jax.lax.stop_gradient(sums), shift, _as_tuple(self.group_axis_name)
    )
    keep = jnp.where(any_row, self.momentum, 1.0).astype(sums.dtype)
    for variable, new in (
      (running_mean, batch_mean),
      (running_var, batch_var),
    ):
      variable.value = (
        keep * variable.value.astype(sums.dtype) + (1 - keep) * new
      ).astype(self.param_dtype)


def _normalize_groups(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
) -> jax.Array:
  """Calls `_normalize` with statistics [C], or [groups, C] of each group."""
  if mean.ndim == 1:
    return _normalize(x, mean, var, scale, bias)
  each = jax.vmap(_normalize, in_axes=(0, 0, 0, None, None))
  rows = _split_rows(x, mean.shape[0])
  return each(rows, mean, var, scale, bias).reshape(x.shape)


def _normalize(
  x: jax.Array,
  mean: jax.Array,
  var: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
) -> jax.Array:
  """Computes (x - mean) / sqrt(var) * scale + bias per channel.

  It is one elementwise expression with the casts around it, so that XLA fuses
  it and writes only the result, in the activations' dtype, to memory.
  """
  broadcast = (1,) * (x.ndim - 1) + x.shape[-1:]
  multiplier = (scale * jax.lax.rsqrt(var)).reshape(broadcast)
  return (x - mean.reshape(broadcast)) * multiplier + bias.reshape(broadcast)


def _as_tuple(axis_name: AxisName) -> tuple[str, ...]:
  """Returns names of mesh axes as a tuple."""
  if axis_name is None:
    return ()
  return (axis_name,) if isinstance(axis_name, str) else tuple(axis_name)


def _split_rows(x: jax.Array, num_groups: int) -> jax.Array:
  """Divides rows into equal runs: [n, ...] -> [groups, n / groups, ...]."""
  if x.shape[0] % num_groups:
    raise ValueError(
      f"{x.shape[0]} rows of a device do not divide into {num_groups} "
      "BatchNorm groups."
    )
  return x.reshape(num_groups, -1, *x.shape[1:])


def _group_sums(
  x: jax.Array, shift: jax.Array, mask: jax.Array | None, num_groups: int
) -> jax.Array:
  """Returns `_local_sums` of each group [groups, 2C + 1]; [2C + 1] of one."""
  if num_groups == 1:
    return _local_sums(x, shift, mask)
  rows = _split_rows(x, num_groups)
  if mask is None:
    return jax.vmap(lambda x: _local_sums(x, shift, None))(rows)
  return jax.vmap(_local_sums, in_axes=(0, None, 0))(
    rows, shift, _split_rows(mask, num_groups)
  )


def _local_sums(
  x: jax.Array, shift: jax.Array, mask: jax.Array | None
) -> jax.Array:
  """Returns [sum of x - shift, sum of its squares, count] as one [2C + 1].

  E[x²] - E[x]² loses digits where the mean is large compared with the standard
  deviation. A shift does not change the variance; the running mean is near the
  mean, costs nothing, and is the same on all devices.
  """
  centered = x - shift.reshape((1,) * (x.ndim - 1) + shift.shape)
  num_positions = math.prod(x.shape[1:-1])
  if mask is None:
    count = jnp.full((1,), x.shape[0] * num_positions, x.dtype)
  else:
    rows = mask.reshape(mask.shape + (1,) * (x.ndim - 1))
    # `where`, not a product: a padded row may hold NaN.
    centered = jnp.where(rows, centered, jnp.zeros_like(centered))
    count = jnp.sum(mask, dtype=x.dtype, keepdims=True) * num_positions
  axes = tuple(range(x.ndim - 1))
  return jnp.concatenate(
    [jnp.sum(centered, axes), jnp.sum(jnp.square(centered), axes), count]
  )


def _moments(
  sums: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns mean [C], biased variance [C] and count [] of `_local_sums`.

  Of the sums of several groups, [groups, C] and [groups].
  """
  if sums.ndim > 1:
    return jax.vmap(_moments, in_axes=(0, None))(sums, shift)
  total, squares = jnp.split(sums[:-1], 2)
  count = sums[-1]
  # Without any row, the divisor keeps the result finite.
  divisor = jnp.maximum(count, 1)
  mean = total / divisor
  var = jnp.maximum(squares / divisor - jnp.square(mean), 0)
  return mean + shift, var, count


def _running_update(
  sums: jax.Array, shift: jax.Array, group_axes: tuple[str, ...]
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns mean [C], unbiased variance [C] and whether there was a row []."""
  mean, var, weight = _unbiased(sums, shift)
  if group_axes or sums.ndim > 1:
    # Average over the groups; one without a valid row has weight 0.
    stacked = _weighted(mean, var, weight)
    if group_axes:
      stacked = jax.lax.psum(stacked, group_axes)
    weight = stacked[-1]
    mean, var = jnp.split(stacked[:-1] / jnp.maximum(weight, 1), 2)
  return mean, var, weight > 0


def _unbiased(
  sums: jax.Array, shift: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns `_moments` with the unbiased variance, and the group's weight."""
  if sums.ndim > 1:
    return jax.vmap(_unbiased, in_axes=(0, None))(sums, shift)
  mean, var, count = _moments(sums, shift)
  var = var * (count / jnp.maximum(count - 1, 1))
  return mean, var, (count > 0).astype(sums.dtype)


def _weighted(mean: jax.Array, var: jax.Array, weight: jax.Array) -> jax.Array:
  """Returns weighted mean, weighted variance and weight of all groups."""
  if mean.ndim > 1:
    return jnp.sum(jax.vmap(_weighted)(mean, var, weight), axis=0)
  return weight * jnp.concatenate([mean, var, jnp.ones_like(mean[:1])])
