"""A sheet of the views of a few images, for the eye to judge a recipe by."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from etils import epath

from paws_jax import augment
from paws_jax import data
from paws_jax import errors
from paws_jax.data import memory_pipeline
from paws_jax.data.host import decode
from paws_jax.data.sources import catalog
from paws_jax.doctor import inspect
from paws_jax.plots import training_figure
from paws_jax.training import views as views_lib

# Images of each kind.
_MOST_SHOWN = 4


def draw(
  config: ml_collections.ConfigDict,
  found: catalog.Catalog,
  groups: Sequence[inspect.Group],
  seen: dict[str, list[inspect.ImageCheck]],
  workdir: epath.Path,
) -> epath.Path:
  """Draws what the first step makes of a few images, if it draws them.

  Args:
    config: a valid recipe.
    found: the data.
    groups: its images by their purpose.
    seen: what reading them told; images that could not be read are not shown.
    workdir: made if it does not exist.

  Returns:
    The PNG written: labelled and unlabelled images, each beside its crops.

  Raises:
    ValueError: no labelled image can be read, or statistics that the images
      cannot have.
    OSError: the directory cannot be written.
  """
  chosen = {
    group.name: _chosen(group, seen[group.name], found.class_names)
    for group in groups
    if group.name in ("labelled", "unlabelled")
  }
  images = {name: rows for name, (rows, _) in chosen.items() if rows}
  if "labelled" not in images:
    raise errors.InputError("no labelled image can be read: no views are drawn")
  # Where all images are labelled, they are the unlabelled ones as well.
  unlabelled = "unlabelled" if "unlabelled" in images else "labelled"
  canvases = {
    name: _canvases(config, found.train.images, rows)
    for name, rows in images.items()
  }
  section = augment.ViewsConfig(**config.views)
  views = _first_views(
    canvases[unlabelled],
    canvases["labelled"],
    seed=config.seed,
    section=section,
    num_support_views=config.support.num_views,
  )
  strips = []
  for name, kinds in (
    (unlabelled, views.crops.values()),
    ("labelled", (views.support,)),
  ):
    shown = [
      training_figure.to_levels(kind, mean=section.mean, std=section.std)
      for kind in kinds
    ]
    for i, caption in enumerate(chosen[name][1]):
      height, width = canvases[name].size[i]
      original = canvases[name].image[i][:height, :width]
      crops = tuple(list(kind[i]) for kind in shown)
      strips.append(training_figure.Strip(caption, original, crops))
  workdir.mkdir(parents=True, exist_ok=True)
  path = workdir / training_figure.VIEWS
  training_figure.views_sheet(path, strips)
  return path


def _chosen(
  group: inspect.Group,
  looked: Sequence[inspect.ImageCheck],
  class_names: Sequence[str],
) -> tuple[list[int], list[str]]:
  """A few readable rows of a group, evenly spread; how to call them."""
  good = [place for place, one in enumerate(looked) if one.height]
  spread = np.linspace(0, len(good) - 1, min(_MOST_SHOWN, len(good)))
  places = [good[int(at)] for at in spread]
  rows = [int(group.rows[place]) for place in places]
  captions = []
  for place, row in zip(places, rows, strict=True):
    kind = "unlabelled"
    if group.name == "labelled":
      kind = f"support of {class_names[group.labels[place]]!r}"
    size = f"{looked[place].width} x {looked[place].height}"
    captions.append(f"{kind}: {group.images.name(row)} ({size})")
  return rows, captions


def _canvases(
  config: ml_collections.ConfigDict, images: catalog.Reader, rows: list[int]
) -> data.Canvases:
  """Rows as a pipeline makes canvases of them, on the host."""
  ids = np.asarray(rows, np.int32)
  if isinstance(images, inspect.ArrayImages):
    pixels = memory_pipeline.resize(
      images.pixels[ids], side=config.data.image_size
    )
    size = np.array([pixels.shape[1:3]] * len(ids), np.int32)
    return data.Canvases(pixels, size, ids)
  decoded = [
    decode.canvas(
      images.read(row),
      name=images.name(row),
      canvas_size=config.data.canvas_size,
      max_pixels=config.data.max_pixels,
    )
    for row in rows
  ]
  pixels, sizes = zip(*decoded, strict=True)
  return data.Canvases(np.stack(pixels), np.stack(sizes), ids)


def _first_views(
  unlabelled: data.Canvases,
  labelled: data.Canvases,
  *,
  seed: int,
  section: augment.ViewsConfig,
  num_support_views: int,
) -> data.Views:
  """Views of these images in step 0, on the host."""
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
    seed=seed,
    step=0,
    config=section,
    num_support_views=num_support_views,
  )
  return jax.device_get(jax.jit(make)(jax.tree.map(jnp.asarray, batch)))
