"""PAWS: predicting view assignments with support samples (2021)."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import augment
from paws_jax import data
from paws_jax import losses
from paws_jax import sharding
from paws_jax.methods import method


@dataclasses.dataclass(frozen=True)
class Paws:
  """Views of an image must get the same soft label from the support set.

  Section 3 of the paper. With a prediction head, embeddings behind it (z) are
  anchors and their supports, with gradient to both; those before it (h) are
  targets and theirs, without.
  """

  config: method.MethodConfig
  encoder: Any
  label_smoothing: float
  remat: str = "none"
  axis_name: Any = None

  def views(self, config: augment.ViewsConfig) -> augment.ViewsConfig:
    """All crops of the recipe; at least two large ones are needed."""
    if config.num_large < 2:
      raise ValueError(
        f"views.num_large is {config.num_large}: paws compares at least 2 "
        "large crops of an image."
      )
    return config

  def init(
    self, key: jax.Array, batch: data.Views
  ) -> tuple[method.Params, method.ModelState]:
    """Initial parameters and batch statistics."""
    return method.init_encoder(self.encoder, key, batch.large[:, 0])

  @property
  def state_specs(self) -> Any:
    """Batch statistics are the same on every device."""
    return sharding.REPLICATED

  def loss(
    self,
    params: method.Params,
    model_state: method.ModelState,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], method.ModelState]]:
    """Cross-entropy of views plus me-max; see `losses.paws_loss`.

    Args:
      params: encoder parameters.
      model_state: batch statistics.
      batch: this device's views.
      step: unused; PAWS has no schedule of its own.
      key: unused; PAWS draws nothing.

    Returns:
      Global loss, (global scalar metrics, updated batch statistics).
    """
    del step, key
    h, z, h_support, z_support, model_state = self._encode(
      params, model_state, batch
    )
    num_small = 0 if batch.small is None else batch.small.shape[1]
    probs, targets = losses.paws_predictions(
      z,
      z_support,
      method.support_rows(batch, smoothing=self.label_smoothing),
      h,
      h_support,
      num_small_crops=num_small,
      num_large_crops=batch.large.shape[1],
      temperature=self.config.temperature,
      sharpen_temperature=self.config.sharpen_temperature,
    )
    cross_entropy, regularizer = losses.paws_objective(
      probs,
      targets,
      sharpen_temperature=self.config.sharpen_temperature,
      me_max=True,
      axis_name=self.axis_name,
    )
    loss = cross_entropy
    if self.config.me_max:
      loss = loss + regularizer
    confidence = jnp.mean(jnp.max(targets, axis=-1))
    if self.axis_name is not None:
      confidence = jax.lax.pmean(confidence, self.axis_name)
    if self.config.support_loss_weight:
      support_loss = self._support_loss(z_support, batch)
      loss = loss + self.config.support_loss_weight * support_loss
    metrics = {
      "loss": loss,
      "cross_entropy": cross_entropy,
      # KL(mean prediction ‖ uniform): me-max, as a number that falls to zero.
      "me_max_kl": math.log(probs.shape[-1]) + regularizer,
      "target_confidence": confidence,
    }
    return loss, (metrics, model_state)

  def _support_loss(self, z_support, batch):
    """Cross-entropy of each support's label under a vote of the others.

    An option of the paper (appendix E): labels then also act by themselves. The
    supports are all gathered, so every device computes the same.
    """
    rows = method.support_rows(batch, smoothing=self.label_smoothing)
    loss = losses.suncet_loss(
      z_support, rows, temperature=self.config.temperature
    )
    if self.axis_name is not None:
      # The mean of equal values tells the compiler that they are.
      loss = jax.lax.pmean(loss, self.axis_name)
    return loss

  def _encode(self, params, model_state, batch):
    """Embeddings (h, z) of views, view-major, and (h, z) of all supports.

    h holds the large views, swapped when there are two; z all views. Two passes
    as in the reference: supports with large crops, then the small crops; each
    is one BatchNorm batch.
    """
    num_large = batch.large.shape[1]
    supports = method.fold_views(batch.support)
    large = method.fold_views(batch.large)
    mask = method.support_views_mask(batch)
    if mask is not None:
      mask = jnp.concatenate([mask, jnp.ones_like(large[:, 0, 0, 0], bool)])
    h, z, model_state = method.encode(
      self.encoder,
      params,
      model_state,
      jnp.concatenate([supports, large]),
      mask=mask,
      remat=self.remat,
    )
    num_supports = supports.shape[0]
    h_large = method.view_major(h[num_supports:], num_large)
    z_all = method.view_major(z[num_supports:], num_large)
    if num_large == 2:
      h_large = jnp.roll(h_large, h_large.shape[0] // 2, axis=0)
    if batch.small is not None:
      _, z_small, model_state = method.encode(
        self.encoder,
        params,
        model_state,
        method.fold_views(batch.small),
        remat=self.remat,
      )
      z_small = method.view_major(z_small, batch.small.shape[1])
      z_all = jnp.concatenate([z_all, z_small])
    h, z = h[:num_supports], z[:num_supports]
    if self.encoder.prediction is None:
      # z is h.
      both = [method.gather_supports(z, batch, self.axis_name)] * 2
    else:
      # z with gradient, h without.
      z, h = method.gather_supports_beside(z, h, batch, self.axis_name)
      both = [h, z]
    return h_large, z_all, *both, model_state
