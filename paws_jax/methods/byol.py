"""BYOL: a view predicts the average network's projection of another (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import collapse
from paws_jax.methods import encoding
from paws_jax.methods import target_network


@dataclasses.dataclass(frozen=True)
class Byol(target_network.WithTarget):
  """Both views predict each other; small crops predict the two views.

  Each view is a BatchNorm batch of its own, small crops together are another.
  """

  shown_losses = ("byol",)

  def momentum(self, step: jax.Array) -> jax.Array:
    """Returns 1 − (1 − m)(1 + cos(π t / steps)) / 2 after step t."""
    step = jnp.asarray(step, float)
    progress = jnp.minimum(step / self.facts.total_steps, 1)
    return 1 - (1 - self.config.momentum) * (1 + jnp.cos(jnp.pi * progress)) / 2

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns the two large views and, if there are any, small crops."""
    return encoding.two_crops(
      section, method_name=self.config.name, more=("small",)
    )

  def loss(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> base.Output:
    """Computes the distances of predictions and targets."""
    del step, key
    large = encoding.pair_of_views(batch)
    projections, predictions, targets = [], [], []
    for images in large:
      h, z, batch_stats = self.encode_online(params, batch_stats, images)
      projections.append(h)
      predictions.append(z)
    if "small" in batch.crops:
      small = batch.crops["small"]
      _, z, batch_stats = self.encode_online(
        params, batch_stats, encoding.fold_views(small)
      )
      predictions.append(encoding.view_major(z, small.shape[1]))
    for images in large:
      target, batch_stats = self.encode_target(extra, batch_stats, images)
      targets.append(target)
    loss = losses.byol_loss(
      jnp.concatenate(predictions), jnp.concatenate(targets)
    )
    means = {"byol": loss}
    if self.config.health_metrics:
      means |= collapse.metrics(projections[0], self.axis_name)
    means = encoding.device_means(means, self.axis_name)
    loss = means["byol"]
    return base.Output(loss, {"loss": loss} | means, batch_stats)
