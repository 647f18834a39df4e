"""SimSiam: a view predicts the network's own projection of another (2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import collapse
from paws_jax.methods import encoding


@dataclasses.dataclass(frozen=True)
class Simsiam(base.Method):
  """Both views predict each other's projection, which gets no gradient.

  Each view is a BatchNorm batch of its own.
  """

  shown_losses = ("simsiam",)
  needs_support = False

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns two large crops; small ones are refused."""
    return encoding.two_crops(section, method_name=self.config.name)

  def param_labels(self, params: Any) -> Mapping[str, str]:
    """Gives the prediction head its constant learning rate."""
    constant = self.config.constant_prediction_lr
    return {
      name: "constant_lr" if constant and name == "prediction" else "default"
      for name in params
    }

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
    """Computes the cosines of predictions and projections."""
    del extra, step, key
    projections, predictions = [], []
    for images in encoding.pair_of_views(batch):
      h, z, batch_stats = encoding.encode(
        self.encoder, params, batch_stats, images, remat=self.remat
      )
      projections.append(h)
      predictions.append(z)
    loss = losses.simsiam_loss(
      jnp.concatenate(predictions), jnp.concatenate(projections)
    )
    # −1 is the best loss; what is shown is at least 0.
    means = {"loss": loss, "simsiam": 1 + loss}
    if self.config.health_metrics:
      means |= collapse.metrics(projections[0], self.axis_name)
    means = encoding.device_means(means, self.axis_name)
    return base.Output(means["loss"], means, batch_stats)
