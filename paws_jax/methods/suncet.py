"""SimCLR with SuNCEt, a contrastive loss of the labels (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax import data
from paws_jax.methods import base
from paws_jax.methods import device_losses
from paws_jax.methods import encoding
from paws_jax.methods import simclr
from paws_jax.parallel import gather


@dataclasses.dataclass(frozen=True)
class Suncet(simclr.Simclr):
  """The NT-Xent loss of unlabelled images plus the SuNCEt loss of supports.

  Both terms see the embeddings of one BatchNorm batch. Labelled images contrast
  only with the labelled images of all devices. From step
  `method.supervised_until` on, the loss is NT-Xent alone, but the supports stay
  in the BatchNorm batch.
  """

  shown_losses = ("nt_xent", "suncet")
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
    """Computes both terms; arguments as in `Paws.loss`, but `step` is used."""
    del extra, key
    config = self.config
    local, batch_stats = encoding.encode_supports_and_large(
      self.encoder, params, batch_stats, batch, remat=self.remat
    )
    learned: list[jax.Array] = [local.z_support]
    constants: list[jax.Array] = []
    (constants if config.detached_keys else learned).append(local.z_large)
    supports, large = gather.gather(
      learned, constants, axis_name=self.axis_name
    )
    means = self._contrast(local.z_large, large)
    means["suncet"] = device_losses.support_loss(
      local.z_support,
      encoding.without_padding(supports, batch),
      batch,
      temperature=config.temperature,
      smoothing=self.label_smoothing,
      axis_name=self.axis_name,
      num_blocks=encoding.num_blocks(self.encoder),
    )
    means = encoding.device_means(means, self.axis_name)
    weight = device_losses.label_weight(config, step)
    loss = means["nt_xent"] + weight * means["suncet"]
    return base.Output(loss, {"loss": loss} | means, batch_stats)
