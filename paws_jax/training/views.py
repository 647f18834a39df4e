"""Cuts and augments the views of a step, on device."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.data import sampling
from paws_jax.data.host import cut


@dataclasses.dataclass(frozen=True)
class StepViews:
  """Specifications of the views of a step.

  Attributes:
    crops: of the unlabelled images, in the order of their numbers.
    support: of the labelled images; its count is not read.
    mean: per channel, in units of the full range.
    std: per channel, in units of the full range.
  """

  crops: Mapping[str, config_lib.ViewSpec] = dataclasses.field(hash=False)
  support: config_lib.ViewSpec
  mean: tuple[float, ...]
  std: tuple[float, ...]


def step_views(method: Any, section: config_lib.Views) -> StepViews:
  """Selects the views of section `views` that a method uses.

  Raises:
    ValueError: crops that the method cannot use.
  """
  return StepViews(
    crops=method.views(section),
    support=section.support,
    mean=section.mean,
    std=section.std,
  )


def host_crops(
  recipe: config_lib.Recipe, method: Any, support: config_lib.Support
) -> dict[str, Any]:
  """Returns the pipeline's option `crops`; none where the device cuts them."""
  if recipe.views.crop_on == "device":
    return {}
  views = step_views(method, recipe.views)
  return {"crops": cut.CropSpecs(views.crops, views.support, support.num_views)}


def make_views(
  batch: data.HostBatch,
  *,
  seed: int | jax.Array,
  step: int | jax.Array,
  views: StepViews,
  num_support_views: int,
  uncut: bool = False,
) -> data.Views:
  """Cuts and distorts the crops of one step.

  Every crop is a function of (seed, step, image id, number of the view), so it
  does not matter which device cuts it. Views of an image are numbered through
  the named crops in order.

  Args:
    batch: contract in `paws_jax.data`; inside `shard_map`, this device's rows.
    seed: the run's seed.
    step: from 0.
    views: specifications of the views.
    num_support_views: V.
    uncut: whether to return `data.Uncut` in place of each array of views, which
      cuts them later.

  Returns:
    The views; contract in `paws_jax.data`.
  """
  made = data.Views(crops={})
  if batch.unlabelled is not None:
    made = made._replace(
      crops=_crops(batch.unlabelled, views, seed=seed, step=step, uncut=uncut),
      ids=batch.unlabelled.id,
    )
  if batch.support is None:
    return made
  assert batch.support_slot is not None
  keys = sampling.view_keys(
    batch.support.id,
    sampling.view_numbers(batch.support_slot, num_support_views),
    seed=seed,
    stream=sampling.SUPPORT_VIEWS,
    step=step,
  )
  return made._replace(
    support=_cut(
      batch.support, keys, views, "support", views.support, uncut=uncut
    ),
    support_ids=batch.support.id,
    support_mask=batch.support_mask,
    support_labels=batch.support_labels,
    class_ids=batch.class_ids,
  )


def _crops(
  canvases: data.Canvases | data.Crops | data.Features,
  views: StepViews,
  *,
  seed: int | jax.Array,
  step: int | jax.Array,
  uncut: bool,
) -> dict[str, jax.Array]:
  """Cuts the crops of unlabelled images, by name."""
  numbers = jnp.arange(sum(spec.count for spec in views.crops.values()))
  num_images = canvases.id.shape[0]
  keys = sampling.view_keys(
    canvases.id,
    jnp.broadcast_to(numbers[None, :], (num_images, numbers.size)),
    seed=seed,
    stream=sampling.UNLABELLED_VIEWS,
    step=step,
  )
  crops, first = {}, 0
  for name, spec in views.crops.items():
    end = first + spec.count
    crops[name] = _cut(
      canvases, keys[:, first:end], views, name, spec, uncut=uncut
    )
    first = end
  return crops


def _cut(
  canvases: data.Canvases | data.Crops | data.Features,
  keys: jax.Array,
  views: StepViews,
  name: str,
  spec: config_lib.ViewSpec,
  *,
  uncut: bool,
) -> Any:
  """Cuts the views of a spec, if the host has not, and distorts them."""
  if isinstance(canvases, data.Features):
    return _draw_features(keys, canvases.views[name])
  images, sizes = (
    (canvases.views[name], None)
    if isinstance(canvases, data.Crops)
    else (canvases.image, canvases.size)
  )
  made = data.Uncut(
    images, sizes, jax.random.key_data(keys), spec, views.mean, views.std
  )
  return made if uncut else made.cut()


def _draw_features(keys: jax.Array, features: jax.Array) -> jax.Array:
  """Draws different views.

  Args:
    keys: [n, count], of which the first of an image draws.
    features: [n, V, d].

  Returns:
    [n, count, 1, 1, d] float32.
  """
  num_views, count = features.shape[1], keys.shape[1]

  def draw(key: jax.Array, views: jax.Array) -> jax.Array:
    return views[jax.random.permutation(key, num_views)[:count]]

  drawn = jax.vmap(draw)(keys[:, 0], features)
  return drawn[:, :, None, None].astype(jnp.float32)
