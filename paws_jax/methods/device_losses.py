"""One device's part of the contrastive losses, from gathered embeddings.

No gradient is stopped here: a method minimizes the losses, or stops their
gradients and monitors them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses
from paws_jax.methods import encoding


def nt_xent(
  local: jax.Array,
  everything: jax.Array,
  *,
  temperature: float,
  axis_name: Any,
  num_blocks: int = 1,
) -> jax.Array:
  """Computes the mean NT-Xent loss of this device's views.

  Args:
    local: [2·b, D], all first views, then all second views.
    everything: [devices · 2·b, D], the views of all devices.
    temperature: τ.
    axis_name: mesh axes, or None outside `shard_map`.
    num_blocks: blocks of views whose similarities are computed at a time.
  """
  first: int | jax.Array = 0
  if axis_name is not None:
    first = jax.lax.axis_index(axis_name) * local.shape[0]
  each = losses.nt_xent_rows(
    local,
    everything,
    first=first,
    temperature=temperature,
    num_blocks=num_blocks,
  )
  return jnp.mean(each)


def support_loss(
  local: jax.Array,
  everything: jax.Array,
  batch: data.Views,
  *,
  temperature: float,
  smoothing: float,
  axis_name: Any,
  num_blocks: int = 1,
) -> jax.Array:
  """Computes this device's part of the SuNCEt loss of the supports.

  Args:
    local: [n·V, D], supports of this device, padding included.
    everything: [N·V, D], supports of all devices, without padding.
    batch: the step's views.
    temperature: τ.
    smoothing: of the label rows.
    axis_name: mesh axes, or None outside `shard_map`.
    num_blocks: blocks of supports whose similarities are computed at a time.

  Returns:
    Scalar ≥ 0; its mean over the devices is `losses.suncet_loss`.
  """
  rows = encoding.support_rows(batch, smoothing=smoothing)
  first: int | jax.Array = 0
  num_devices = 1
  if axis_name is not None:
    num_devices = jax.lax.psum(1, axis_name)
    first = jax.lax.axis_index(axis_name) * local.shape[0]
  places = first + jnp.arange(local.shape[0])

  def terms(block: tuple[jax.Array, jax.Array]) -> jax.Array:
    local, places = block
    return losses.suncet_rows(
      local,
      rows[jnp.minimum(places, rows.shape[0] - 1)],
      everything,
      rows,
      first=places[0],
      temperature=temperature,
    )

  each = losses.in_blocks(terms, (local, places), num_blocks=num_blocks)
  mine = jnp.where(places < rows.shape[0], each, 0)
  return jnp.sum(mine) * num_devices / rows.shape[0]


def label_weight(section: Any, step: jax.Array) -> jax.Array | float:
  """Returns the weight of the labels' term at a step.

  Args:
    section: with fields `support_loss_weight` and `supervised_until`.
    step: int32 scalar, steps taken before this one.
  """
  weight = section.support_loss_weight
  if not section.supervised_until:
    return weight
  return jnp.where(step < section.supervised_until, weight, 0.0)
