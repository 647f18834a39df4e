"""Metrics that show whether embeddings collapse to a point or to a few axes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import losses
from paws_jax.methods import health_metrics
from paws_jax.parallel import gather


def metrics(embeddings: jax.Array, axis_name: Any) -> dict[str, jax.Array]:
  """Computes feature rank and spread of the embeddings of all devices.

  Args:
    embeddings: [b, D] of this device, without gradient.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    Values for `encoding.device_means`: "feature_rank"; and "output_std", the
    mean over dimensions of the standard deviation of normalized embeddings,
    times √D: about 1 where they are spread evenly, 0 where all are equal
    (SimSiam, section 4.1, 2021).
  """
  (rows,) = gather.gather((), (embeddings,), axis_name=axis_name)
  rows = losses.normalize(rows)
  spread = jnp.mean(jnp.std(rows, axis=0)) * rows.shape[-1] ** 0.5
  return {
    "feature_rank": health_metrics.feature_rank(rows),
    "output_std": spread,
  }
