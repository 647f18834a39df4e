"""Numbers that tell whether training is healthy; none has a gradient.

They are made of what a step of PAWS has anyway, and share its all-gather and
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
) -> dict[str, jax.Array]:
  """This device's part of the metrics; their means over devices are meant.

  Args:
    local: embeddings of this device.
    probs: [(L + M)·b, C] predictions of its anchors, view-major.
    batch: its views.
    z_support: [N·V, D] of all devices.
    z_pairs: [devices · 2·b, D], first and second large views of all devices.
    temperature: τ.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    To be averaged over the devices and given to `finished`.
  """
  stop = jax.lax.stop_gradient
  local, probs, z_support, z_pairs = stop((local, probs, z_support, z_pairs))
  num_images = batch.crops["large"].shape[0]
  first, second = _preferred(probs[: 2 * num_images]).reshape(2, -1)
  used = jax.nn.one_hot(jnp.stack([first, second]), probs.shape[-1])
  nearest = losses.cosine_similarities(local.z_large, z_support)
  metrics = {
    "nt_xent": device_losses.nt_xent(
      local.z_large[: 2 * num_images],
      z_pairs,
      temperature=temperature,
      axis_name=axis_name,
    ),
    "view_agreement": jnp.mean(first == second, dtype=probs.dtype),
    "max_similarity": jnp.mean(jnp.max(nearest, axis=-1)),
    "feature_rank": feature_rank(z_support),
    _CLASS_SHARES: jnp.mean(used.astype(probs.dtype), axis=(0, 1)),
  }
  if z_support.shape[0] >= 2 * probs.shape[-1]:
    # With one support a class there is none to vote for it.
    metrics["suncet"] = device_losses.support_loss(
      local.z_support,
      z_support,
      batch,
      temperature=temperature,
      smoothing=0.0,
      axis_name=axis_name,
    )
  return metrics


def finished(means: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
  """Scalars of the metrics that have been averaged over the devices.

  Returns:
    The same but for the shares of the classes, which become "classes_used":
    the share of the step's classes that are the most probable one of at least
    one of the images' first two large views.
  """
  scalars = dict(means)
  if _CLASS_SHARES in scalars:
    shares = scalars.pop(_CLASS_SHARES)
    scalars["classes_used"] = jnp.mean(shares > 0, dtype=shares.dtype)
  return scalars


def _preferred(probs: jax.Array) -> jax.Array:
  """Most probable class of each row [n, C]: [n] int32, the first of equals.

  After a collapse all classes are as probable, up to rounding, which must not
  look like predictions: what differs by less than a thousandth of 1/C is equal.
  """
  steps = 1000 * probs.shape[-1]
  return jnp.argmax(jnp.round(probs * steps), axis=-1)


def feature_rank(embeddings: jax.Array) -> jax.Array:
  """`losses.effective_rank` of at most 128 of [n, D], evenly spread."""
  num_rows = embeddings.shape[0]
  places = jnp.linspace(0, num_rows - 1, min(num_rows, _MOST_RANK_ROWS))
  return losses.effective_rank(embeddings[jnp.round(places).astype(jnp.int32)])
