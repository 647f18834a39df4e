"""Supervised training on the labelled images alone: the baseline of PAWS.

Every labelled image is classified by a soft nearest-neighbor vote of the other
labelled images of the step (the SuNCEt loss, 2020). Encoder, supports, views,
optimizer and evaluation are those of PAWS, so the difference in accuracy is the
effect of the unlabelled images.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import encoding


@dataclasses.dataclass(frozen=True)
class Supervised(base.Method):
  """The SuNCEt loss of the supports among themselves."""

  shown_losses = ("cross_entropy",)

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns no crops, as training uses no unlabelled images."""
    del section
    return {}

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
    """Computes the SuNCEt loss of supports; arguments as in `Paws.loss`."""
    del extra, step, key
    _, z, batch_stats = encoding.encode(
      self.encoder,
      params,
      batch_stats,
      encoding.fold_views(encoding.supports(batch)),
      mask=encoding.support_views_mask(batch),
      remat=self.remat,
    )
    z = encoding.gather_supports(z, batch, self.axis_name)
    rows = encoding.support_rows(batch, smoothing=self.label_smoothing)
    loss = losses.suncet_loss(z, rows, temperature=self.config.temperature)
    if self.axis_name is not None:
      # All devices have the same value; with the mean, the compiler knows it.
      loss = jax.lax.pmean(loss, self.axis_name)
    return base.Output(loss, {"loss": loss, "cross_entropy": loss}, batch_stats)
