"""SimCLR: contrastive learning of two views of an image (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any
from typing import ClassVar

import jax

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.methods import base
from paws_jax.methods import device_losses
from paws_jax.methods import encoding
from paws_jax.methods import health_metrics
from paws_jax.parallel import gather


@dataclasses.dataclass(frozen=True)
class Simclr(base.Method):
  """The NT-Xent loss of two large crops; training uses no labels.

  The gradient flows through both sides of a similarity, or through the query
  alone with `method.detached_keys`.
  """

  shown_losses: ClassVar[tuple[str, ...]] = ("nt_xent",)
  needs_support = False

  def views(self, section: config_lib.Views) -> dict[str, config_lib.ViewSpec]:
    """Returns two large crops; small ones are refused."""
    crops = encoding.known_crops(
      section, ("large", "small"), method_name=self.config.name
    )
    for name, wanted in (("large", 2), ("small", 0)):
      count = crops[name].count if name in crops else 0
      if count != wanted:
        raise errors.InputError(
          f"views.{name}.count is {count} but method.name is "
          f"{self.config.name!r}, which compares 2 large crops: set it to "
          f"{wanted}."
        )
    return crops

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
    """Computes NT-Xent of the large crops; arguments as in `Paws.loss`."""
    del extra, step, key
    _, z, batch_stats = encoding.encode(
      self.encoder,
      params,
      batch_stats,
      encoding.fold_views(batch.crops["large"]),
      remat=self.remat,
    )
    z = encoding.view_major(z, 2)
    learned, constants = ((), (z,)) if self.config.detached_keys else ((z,), ())
    (everything,) = gather.gather(learned, constants, axis_name=self.axis_name)
    means = self._contrast(z, everything)
    means = encoding.device_means(means, self.axis_name)
    loss = means["nt_xent"]
    return base.Output(loss, {"loss": loss} | means, batch_stats)

  def _contrast(
    self, z: jax.Array, everything: jax.Array
  ) -> dict[str, jax.Array]:
    """Computes this device's part of the loss and of the health metrics.

    Args:
      z: [2·b, D], view-major.
      everything: [devices · 2·b, D].
    """
    means = {
      "nt_xent": device_losses.nt_xent(
        z,
        everything,
        temperature=self.config.temperature,
        axis_name=self.axis_name,
        num_blocks=encoding.num_blocks(self.encoder),
      )
    }
    if self.config.health_metrics:
      by_view = gather.by_view(
        jax.lax.stop_gradient(everything),
        num_views=2,
        num_local=z.shape[0] // 2,
      )
      means["feature_rank"] = health_metrics.feature_rank(by_view[0])
    return means
