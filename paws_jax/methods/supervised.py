"""Supervised training on the labelled images alone: the baseline of PAWS.

Every labelled image is classified by a soft nearest-neighbor vote of the other
labelled images of the step (the SuNCEt loss, 2020). Encoder, supports, views,
optimiser and evaluation are those of PAWS, so that the difference between the
two is what the unlabelled images bring.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax

from paws_jax import augment
from paws_jax import data
from paws_jax import losses
from paws_jax.config.methods import supervised as supervised_config
from paws_jax.methods import encoding
from paws_jax.parallel import mesh


@dataclasses.dataclass(frozen=True)
class Supervised:
  """Soft nearest neighbors among the supports themselves."""

  shown_losses = ("cross_entropy",)

  config: supervised_config.Config
  encoder: Any
  label_smoothing: float
  remat: str = "none"
  axis_name: Any = None

  def views(self, config: augment.ViewsConfig) -> augment.ViewsConfig:
    """No crops of unlabelled images."""
    return dataclasses.replace(config, num_large=0, num_small=0)

  def init(
    self, key: jax.Array, batch: data.Views
  ) -> tuple[encoding.Params, encoding.ModelState]:
    """Initial parameters and batch statistics."""
    return encoding.init_encoder(self.encoder, key, batch.support[:, 0])

  @property
  def state_specs(self) -> Any:
    """Batch statistics are the same on every device."""
    return mesh.REPLICATED

  def loss(
    self,
    params: encoding.Params,
    model_state: encoding.ModelState,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> tuple[jax.Array, tuple[dict[str, jax.Array], encoding.ModelState]]:
    """SuNCEt loss of the support batch; arguments as in `paws.Paws.loss`."""
    del step, key
    _, z, model_state = encoding.encode(
      self.encoder,
      params,
      model_state,
      encoding.fold_views(batch.support),
      mask=encoding.support_views_mask(batch),
      remat=self.remat,
    )
    z = encoding.gather_supports(z, batch, self.axis_name)
    rows = encoding.support_rows(batch, smoothing=self.label_smoothing)
    loss = losses.suncet_loss(z, rows, temperature=self.config.temperature)
    if self.axis_name is not None:
      # Every device computed the same; the mean tells the compiler so.
      loss = jax.lax.pmean(loss, self.axis_name)
    return loss, ({"loss": loss, "cross_entropy": loss}, model_state)
