"""Pseudo-Label: confident predictions are taken for labels (2013)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

import jax

from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import class_head


@dataclasses.dataclass(frozen=True)
class PseudoLabel(class_head.ClassHead):
  """Labelled and unlabelled images, each as a BatchNorm batch of their own.

  Only those of the labelled images enter the running statistics.
  """

  view_counts: ClassVar[Mapping[str, int]] = {"weak": 1}

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
    labelled = self.classify(params, batch_stats, [], batch)
    (weak,) = self.classify(
      params, batch_stats, [batch.crops["weak"][:, 0]]
    ).views
    unlabelled, mask = losses.pseudo_label_loss(
      weak, threshold=self.config.threshold
    )
    loss, means = self.total(
      labelled.labelled,
      unlabelled,
      batch,
      step=step,
      others=class_head.pseudo_metrics(weak, mask),
    )
    metrics = class_head.finished(means) | {"loss": loss}
    return base.Output(loss, metrics, labelled.batch_stats)
