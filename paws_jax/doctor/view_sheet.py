"""A sheet of the views of a few images, by which to judge a recipe."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.data import memory_pipeline
from paws_jax.data.host import decode
from paws_jax.data.sources import catalog
from paws_jax.doctor import inspect
from paws_jax.plots import training_figure
from paws_jax.training import views as views_lib

# Images per group.
_MAX_IMAGES = 4


def draw(
  recipe: config_lib.Recipe,
  listing: catalog.Catalog,
  groups: Sequence[inspect.Group],
  checks: dict[str, list[inspect.ImageCheck]],
  workdir: epath.Path,
) -> epath.Path:
  """Draws a few images with the views that the first step would make of them.

  Args:
    recipe: a valid recipe.
    listing: the data.
    groups: its images by purpose.
    checks: results of reading them; unreadable images are not shown.
    workdir: directory of the figure; created if it does not exist.

  Returns:
    Path of the PNG: labelled and unlabelled images, each beside its crops.

  Raises:
    ValueError: no such image can be read, or channel statistics do not fit.
    OSError: the directory cannot be written.
  """
  chosen = {
    group.name: _choose(group, checks[group.name], listing.class_names)
    for group in groups
    if group.name in ("labelled", "unlabelled")
  }
  images = {name: rows for name, (rows, _) in chosen.items() if rows}
  # Each serves as the other where there is none.
  labelled = "labelled" if "labelled" in chosen else "unlabelled"
  if labelled not in images:
    raise errors.InputError(
      f"no {labelled} image can be read for views.png: repair the files"
    )
  unlabelled = "unlabelled" if "unlabelled" in images else "labelled"
  canvases = {
    name: _canvases(recipe, listing.train.images, rows)
    for name, rows in images.items()
  }
  section = recipe.views
  views = _first_views(recipe, canvases[unlabelled], canvases[labelled])
  strips: list[training_figure.Strip] = []
  shown: list[tuple[str, Any]] = [(unlabelled, views.crops.values())]
  if "labelled" in images:
    shown.append((labelled, (views.support,)))
  for name, kinds in shown:
    levels = [
      training_figure.to_levels(kind, mean=section.mean, std=section.std)
      for kind in kinds
    ]
    strips += _strips(chosen[name][1], canvases[name], levels)
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / training_figure.VIEWS
  training_figure.views_sheet(path, strips)
  return path


def _strips(
  captions: Sequence[str],
  canvases: data.Canvases,
  levels: Sequence[np.ndarray],
) -> Iterator[training_figure.Strip]:
  """Yields each image with its crops; `levels` holds [n, V, H, W, Ch]."""
  for i, caption in enumerate(captions):
    height, width = canvases.size[i]
    original: Any = canvases.image[i][:height, :width]
    crops = tuple(list(kind[i]) for kind in levels)
    yield training_figure.Strip(caption, original, crops)


def _choose(
  group: inspect.Group,
  checks: Sequence[inspect.ImageCheck],
  class_names: Sequence[str],
) -> tuple[list[int], list[str]]:
  """Chooses a few readable rows, evenly spaced; returns rows and captions."""
  good = [place for place, check in enumerate(checks) if check.height]
  spread = np.linspace(0, len(good) - 1, min(_MAX_IMAGES, len(good)))
  places = [good[int(at)] for at in spread]
  rows = [int(group.rows[place]) for place in places]
  captions = []
  for place, row in zip(places, rows, strict=True):
    kind = "unlabelled"
    if group.name == "labelled":
      kind = f"support of {class_names[group.labels[place]]!r}"
    size = f"{checks[place].width} x {checks[place].height}"
    captions.append(f"{kind}: {group.images.name(row)} ({size})")
  return rows, captions


def _canvases(
  recipe: config_lib.Recipe, images: catalog.Reader, rows: list[int]
) -> data.Canvases:
  """Returns the canvases that a pipeline would make of rows, on the host."""
  ids = np.asarray(rows, np.int32)
  if isinstance(images, inspect.ArrayImages):
    pixels = memory_pipeline.resize(
      images.pixels[ids], side=recipe.data.image_size
    )
    size = np.array([pixels.shape[1:3]] * len(ids), np.int32)
    return data.Canvases(pixels, size, ids)
  decoded = [
    decode.canvas(
      images.read(row),
      name=images.name(row),
      canvas_size=recipe.data.canvas_size,
      max_pixels=recipe.data.max_pixels,
      white_level=recipe.data.white_level,
    )
    for row in rows
  ]
  pixels, sizes = zip(*decoded, strict=True)
  return data.Canvases(np.stack(pixels), np.stack(sizes), ids)


def _first_views(
  recipe: config_lib.Recipe, unlabelled: data.Canvases, labelled: data.Canvases
) -> data.Views:
  """Returns the views of these images in step 0, on the host."""
  section = recipe.views
  batch = data.HostBatch(
    unlabelled=unlabelled,
    support=labelled,
    support_slot=np.zeros_like(labelled.id),
    support_mask=None,
    support_labels=np.zeros_like(labelled.id),
    class_ids=np.zeros(1, np.int32),
  )
  make = functools.partial(
    views_lib.make_views,
    seed=recipe.seed,
    step=0,
    views=views_lib.StepViews(
      crops=section.crops,
      support=section.support,
      mean=section.mean,
      std=section.std,
    ),
    num_support_views=recipe.support.num_views,
  )
  return jax.device_get(jax.jit(make)(jax.tree.map(jnp.asarray, batch)))
