"""From undistorted images to the augmented views of a step, on device."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax import augment
from paws_jax import data
from paws_jax.data import sampling


def make_views(
  batch: data.HostBatch,
  *,
  seed: int | jax.Array,
  step: int | jax.Array,
  config: augment.ViewsConfig,
  num_support_views: int,
) -> data.Views:
  """Cuts and distorts the crops of one step.

  Every crop is a function of (seed, step, image id, number of the view), so it
  does not matter which device cuts it. Supports are cut like large crops.

  Args:
    batch: contract in `paws_jax.data`; inside `shard_map`, this device's rows.
    seed: the run's seed.
    step: from 0.
    config: section `views`.
    num_support_views: V.

  Returns:
    The views; contract in `paws_jax.data`.
  """
  views = data.Views(crops={})
  if batch.unlabelled is not None:
    views = views._replace(
      crops=_crops(batch.unlabelled, seed=seed, step=step, config=config),
      ids=batch.unlabelled.id,
    )
  if batch.support is None:
    return views
  numbers = batch.support_slot[:, None] * num_support_views
  numbers += jnp.arange(num_support_views)[None, :]
  keys = sampling.view_keys(
    batch.support.id,
    numbers,
    seed=seed,
    stream=sampling.SUPPORT_VIEWS,
    step=step,
  )
  return views._replace(
    support=_cut(batch.support, keys, config, "large"),
    support_ids=batch.support.id,
    support_mask=batch.support_mask,
    support_labels=batch.support_labels,
    class_ids=batch.class_ids,
  )


def _crops(
  canvases: data.Canvases,
  *,
  seed: int | jax.Array,
  step: int | jax.Array,
  config: augment.ViewsConfig,
) -> dict[str, jax.Array]:
  """Crops of unlabelled images by name; their views are numbered in order."""
  counts = {"large": config.num_large, "small": config.num_small}
  numbers = jnp.arange(sum(counts.values()))
  num_images = canvases.id.shape[0]
  keys = sampling.view_keys(
    canvases.id,
    jnp.broadcast_to(numbers[None, :], (num_images, numbers.size)),
    seed=seed,
    stream=sampling.UNLABELLED_VIEWS,
    step=step,
  )
  crops, first = {}, 0
  for name, count in counts.items():
    if count:
      crops[name] = _cut(canvases, keys[:, first : first + count], config, name)
    first += count
  return crops


def _cut(
  canvases: data.Canvases,
  keys: jax.Array,
  config: augment.ViewsConfig,
  kind: str,
) -> jax.Array:
  return augment.multi_views(
    keys, canvases.image, canvases.size, config=config, kind=kind
  )
