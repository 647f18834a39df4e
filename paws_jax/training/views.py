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
  large = small = None
  if batch.unlabelled is not None:
    numbers = jnp.arange(config.num_large + config.num_small)
    num_images = batch.unlabelled.id.shape[0]
    keys = sampling.view_keys(
      batch.unlabelled.id,
      jnp.broadcast_to(numbers[None, :], (num_images, numbers.size)),
      seed=seed,
      stream=sampling.UNLABELLED_VIEWS,
      step=step,
    )
    large = _cut(batch.unlabelled, keys[:, : config.num_large], config, "large")
    if config.num_small:
      small = _cut(
        batch.unlabelled, keys[:, config.num_large :], config, "small"
      )
  numbers = batch.support_slot[:, None] * num_support_views
  numbers += jnp.arange(num_support_views)[None, :]
  keys = sampling.view_keys(
    batch.support.id,
    numbers,
    seed=seed,
    stream=sampling.SUPPORT_VIEWS,
    step=step,
  )
  return data.Views(
    large=large,
    small=small,
    support=_cut(batch.support, keys, config, "large"),
    support_mask=batch.support_mask,
    support_labels=batch.support_labels,
    class_ids=batch.class_ids,
  )


def _cut(
  canvases: data.Canvases,
  keys: jax.Array,
  config: augment.ViewsConfig,
  kind: str,
) -> jax.Array:
  return augment.multi_views(
    keys, canvases.image, canvases.size, config=config, kind=kind
  )
