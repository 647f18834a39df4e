"""A classifier of the labelled images alone, with all that helps it.

The yardstick of methods that use unlabelled images: RandAugment (in the views),
mixup, CutMix, label smoothing, and the average of the weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any
from typing import ClassVar

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax.losses import consistency
from paws_jax.methods import base
from paws_jax.methods import class_head
from paws_jax.methods import encoding
from paws_jax.parallel import gather


@dataclasses.dataclass(frozen=True)
class StrongSupervised(class_head.ClassHead):
  """Cross-entropy of a linear layer on the trunk, of mixed labelled images."""

  view_counts: ClassVar[Mapping[str, int]] = {}
  shown_losses: ClassVar[tuple[str, ...]] = ("cross_entropy",)

  def views(self, section: Any) -> dict[str, Any]:
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
    """Computes the cross-entropy of the mixed images."""
    del extra, step
    config = self.config
    if not config.mixup and not config.cutmix:
      logits = self.classify(params, batch_stats, [], batch)
      part = self.label_loss(logits.labelled, batch)
    else:
      mixed, shares = self._mix(batch, key)
      logits = self.classify(params, batch_stats, [], mixed)
      part = self._mixed_loss(logits.labelled, batch, shares)
    means = encoding.device_means({"cross_entropy": part}, self.axis_name)
    loss = means["cross_entropy"]
    return base.Output(loss, {"loss": loss} | means, logits.batch_stats)

  def _mix(
    self, batch: data.Views, key: jax.Array | None
  ) -> tuple[data.Views, jax.Array]:
    """Mixes each support with the same view of the next image.

    Returns:
      The views, and [n·V], the share of each that is left of it.
    """
    own = encoding.fold_views(encoding.supports(batch))
    flat = own.reshape(len(own), -1)
    (every,) = gather.gather([flat], axis_name=self.axis_name)
    every = encoding.without_padding(every, batch)
    every = every.reshape(-1, *own.shape[1:])
    places = self._places(len(own))
    following = every[(places + _num_views(batch)) % len(every)]
    assert key is not None
    draws = jax.vmap(
      lambda place: _draw(jax.random.fold_in(key, place), self.config)
    )(places)
    height, width = own.shape[1:3]
    cut = _rectangles(draws["weight"], draws["center"], height, width)
    left = 1 - jnp.mean(cut, axis=(1, 2), dtype=own.dtype)
    weight = draws["weight"].astype(own.dtype)
    blend = weight[:, None, None, None]
    blended = blend * own + (1 - blend) * following
    pasted = jnp.where(cut[..., None], following, own)
    by_cut = draws["by_cut"]
    mixed = jnp.where(by_cut[:, None, None, None], pasted, blended)
    shares = jnp.where(by_cut, left, weight)
    support = mixed.reshape(encoding.supports(batch).shape)
    return batch._replace(support=support), shares

  def _places(self, count: int) -> jax.Array:
    """Places of this device's rows among those of all devices."""
    first: int | jax.Array = 0
    if self.axis_name is not None:
      first = jax.lax.axis_index(self.axis_name) * count
    return first + jnp.arange(count)

  def _mixed_loss(
    self, logits: jax.Array, batch: data.Views, shares: jax.Array
  ) -> jax.Array:
    """Computes this device's part of the mean, as `label_loss`."""
    assert batch.support_labels is not None
    labels = jnp.repeat(batch.support_labels, _num_views(batch))
    places, count = self._places(len(logits)), labels.shape[0]
    each = jnp.zeros_like(shares, shape=len(logits))
    for offset, share in ((0, shares), (_num_views(batch), 1 - shares)):
      each += share * consistency.label_cross_entropy(
        logits,
        labels[(places + offset) % count],
        smoothing=self.label_smoothing,
      )
    inside = jnp.where(places < count, each, 0)
    return jnp.sum(inside) * (self.num_devices / count)


def _num_views(batch: data.Views) -> int:
  """Returns the views of each support, which are in successive rows."""
  return encoding.supports(batch).shape[1]


def _draw(key: jax.Array, config: Any) -> dict[str, jax.Array]:
  """Draws how an image is mixed.

  Returns:
    "weight" of the image, "by_cut": whether a rectangle is pasted, and "center"
    of that, as shares of height and width.
  """
  kind, blend, cut, center = jax.random.split(key, 4)
  half = 0.5 if config.mixup and config.cutmix else float(config.cutmix > 0)
  by_cut = jax.random.uniform(kind) < half
  weights = [
    jax.random.beta(each, alpha, alpha) if alpha else jnp.ones(())
    for each, alpha in ((blend, config.mixup), (cut, config.cutmix))
  ]
  return {
    "weight": jnp.where(by_cut, weights[1], weights[0]),
    "by_cut": by_cut,
    "center": jax.random.uniform(center, (2,)),
  }


def _rectangles(
  weights: jax.Array, centers: jax.Array, height: int, width: int
) -> jax.Array:
  """Marks the rectangles that are pasted: bool [n, H, W].

  Args:
    weights: [n], shares of the area outside, but for what the border cuts off.
    centers: [n, 2].
    height: of the images.
    width: of the images.
  """
  side = jnp.sqrt(1 - weights)

  def inside(center: jax.Array, size: int) -> jax.Array:
    pixel = jnp.arange(size) + 0.5
    distance = jnp.abs(pixel[None, :] - size * center[:, None])
    return distance < (size * side / 2)[:, None]

  rows, columns = inside(centers[:, 0], height), inside(centers[:, 1], width)
  return rows[:, :, None] & columns[:, None, :]
