"""Metrics of the health of training, without gradients.

They are computed from the arrays of a PAWS step, and share its all-gather and
one small all-reduce.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses
from paws_jax.methods import device_losses
from paws_jax.methods import encoding

# An eigenvalue problem of this size takes little time on any device.
_MOST_RANK_ROWS = 128

_CLASS_SHARES = "class_shares"


def of_step(
  local: encoding.Embeddings,
  probs: jax.Array,
  batch: data.Views,
  *,
  z_support: jax.Array,
  z_pairs: jax.Array,
  temperature: float,
  axis_name: Any,
  num_blocks: int = 1,
) -> dict[str, jax.Array]:
  """Computes this device's part of the metrics.

  Args:
    local: embeddings of this device.
    probs: [(L + M)·b, C] predictions of its anchors, view-major.
    batch: its views.
    z_support: [N·V, D] of all devices.
    z_pairs: [devices · 2·b, D], first and second large views of all devices.
    temperature: τ.
    axis_name: mesh axes, or None outside `shard_map`.
    num_blocks: of rows whose similarities are computed at a time.

  Returns:
    Values whose means over the devices `finished` takes.
  """
  stop = jax.lax.stop_gradient
  local, probs, z_support, z_pairs = stop((local, probs, z_support, z_pairs))
  num_images = batch.crops["large"].shape[0]
  first, second = _preferred(probs[: 2 * num_images]).reshape(2, -1)
  used = jax.nn.one_hot(jnp.stack([first, second]), probs.shape[-1])
  nearest = losses.in_blocks(
    lambda z: jnp.max(losses.cosine_similarities(z, z_support), axis=-1),
    local.z_large,
    num_blocks=num_blocks,
  )
  options: dict[str, Any] = {
    "temperature": temperature,
    "axis_name": axis_name,
    "num_blocks": num_blocks,
  }
  metrics = {
    "nt_xent": device_losses.nt_xent(
      local.z_large[: 2 * num_images], z_pairs, **options
    ),
    "view_agreement": jnp.mean(first == second, dtype=probs.dtype),
    "max_similarity": jnp.mean(nearest),
    "feature_rank": feature_rank(z_support),
    _CLASS_SHARES: jnp.mean(used.astype(probs.dtype), axis=(0, 1)),
  }
  if z_support.shape[0] >= 2 * probs.shape[-1]:
    # With one support per class, no other support votes for it.
    metrics["suncet"] = device_losses.support_loss(
      local.z_support, z_support, batch, smoothing=0.0, **options
    )
  return metrics


def finished(means: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Converts metrics averaged over the devices to scalars.

  Returns:
    The same metrics, but "classes_used" instead of the shares of the classes:
    the share of the step's classes that are the most probable one for at least
    one of the images' first two large views.
  """
  scalars = dict(means)
  if _CLASS_SHARES in scalars:
    shares = scalars.pop(_CLASS_SHARES)
    scalars["classes_used"] = jnp.mean(shares > 0, dtype=shares.dtype)
  return scalars


def _preferred(probs: jax.Array) -> jax.Array:
  """Returns the most probable class of each row [n, C]: [n] int32.

  Probabilities that differ by less than a thousandth of 1/C count as equal, and
  the first of equals is taken: after a collapse, all classes are equally
  probable up to rounding, which must not look like predictions.
  """
  steps = 1000 * probs.shape[-1]
  return jnp.argmax(jnp.round(probs * steps), axis=-1)


def feature_rank(embeddings: jax.Array) -> jax.Array:
  """Computes `losses.effective_rank` of at most 128 evenly spread rows."""
  num_rows = embeddings.shape[0]
  places = jnp.linspace(0, num_rows - 1, min(num_rows, _MOST_RANK_ROWS))
  return losses.effective_rank(embeddings[jnp.round(places).astype(jnp.int32)])
