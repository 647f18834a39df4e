"""SwAV with SuNCEt, a contrastive loss of the labels (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax import data
from paws_jax.methods import base
from paws_jax.methods import device_losses
from paws_jax.methods import encoding
from paws_jax.methods import swav
from paws_jax.parallel import gather


@dataclasses.dataclass(frozen=True)
class SwavSuncet(swav.Swav):
  """SwAV's loss of the unlabelled images plus the SuNCEt loss of supports.

  Labelled images join the large crops in the trunk's BatchNorm batch and all
  crops in the head's, but neither assignments nor the queue. From step
  `method.supervised_until` on the loss is SwAV's alone, with the same BatchNorm
  batches. No public code exists: the composition is ours (Assran et al., 2020,
  arXiv 2006.10803, give its result).
  """

  shown_losses = ("assignment_kl", "suncet")
  needs_support = True

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
    """Computes both terms."""
    del key
    config = self.config
    local, batch_stats = self.encode_crops(params, batch_stats, batch)
    assert local.supports is not None
    means, rows = self.swap(params, extra, local.crops, step=step)
    (supports,) = gather.gather([local.supports], axis_name=self.axis_name)
    means["suncet"] = device_losses.support_loss(
      local.supports,
      encoding.without_padding(supports, batch),
      batch,
      temperature=config.support_temperature,
      smoothing=self.label_smoothing,
      axis_name=self.axis_name,
      num_blocks=encoding.num_blocks(self.encoder),
    )
    means = encoding.device_means(means, self.axis_name)
    weight = device_losses.label_weight(config, step)
    loss = means["loss"] + weight * means["suncet"]
    metrics = swav.finished(means) | {"loss": loss}
    return base.Output(loss, metrics, batch_stats, rows=rows)
