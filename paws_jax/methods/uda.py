"""UDA: strong views learn the sharpened predictions of weak views (2019)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses
from paws_jax.losses import uda as uda_loss
from paws_jax.methods import base
from paws_jax.methods import class_head
from paws_jax.methods import encoding


@dataclasses.dataclass(frozen=True)
class Uda(class_head.ClassHead):
  """Labelled images, weak and strong views, as one BatchNorm batch."""

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
    """Computes the losses of labelled and unlabelled images."""
    del extra, key
    config = self.config
    logits = self.classify_weak_and_strong(params, batch_stats, batch)
    weak, strong = logits.views
    unlabelled, mask = losses.uda_loss(
      weak,
      strong,
      temperature=config.target_temperature,
      threshold=config.threshold,
      mask_on=config.mask_on,
      strict=config.strict,
    )
    threshold = losses.tsa_threshold(
      config.tsa, self.progress(step), num_classes=weak.shape[-1]
    )
    own = self.labelled_rows(batch)
    each, kept = uda_loss.tsa_rows(
      logits.labelled,
      own.labels,
      threshold=threshold,
      smoothing=self.label_smoothing,
    )
    kept &= own.counts
    means = encoding.device_means(
      {
        "sum": jnp.sum(jnp.where(kept, each, 0)),
        "kept": jnp.sum(kept, dtype=each.dtype),
        "consistency": unlabelled,
        "entropy": jnp.mean(uda_loss.entropy(weak)),
        **class_head.pseudo_metrics(weak, mask),
      },
      self.axis_name,
    )
    # Their sums are the means times the number of devices.
    count = jnp.maximum(means.pop("kept") * self.num_devices, 1)
    means["cross_entropy"] = means.pop("sum") * self.num_devices / count
    loss = means["cross_entropy"] + self.ramp(step) * means["consistency"]
    loss += config.entropy_weight * means["entropy"]
    metrics = class_head.finished(means) | {
      "loss": loss,
      "tsa_threshold": jnp.asarray(threshold, loss.dtype),
    }
    return base.Output(loss, metrics, logits.batch_stats)
