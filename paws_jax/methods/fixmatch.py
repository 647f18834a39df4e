"""FixMatch: strong views learn the classes of weak views (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import class_head


@dataclasses.dataclass(frozen=True)
class Fixmatch(class_head.ClassHead):
  """Labelled images, weak and strong views, as one BatchNorm batch.

  The order of the batch is that of the public code. Weak views are targets
  without gradient, but take part in the statistics of the others.
  """

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
    unlabelled, mask = losses.fixmatch_loss(
      weak,
      strong,
      threshold=config.threshold,
      temperature=config.target_temperature,
      hard=config.hard,
    )
    loss, means = self.total(
      logits.labelled,
      unlabelled,
      batch,
      step=step,
      others=class_head.pseudo_metrics(weak, mask),
    )
    metrics = class_head.finished(means) | {"loss": loss}
    return base.Output(loss, metrics, logits.batch_stats)
