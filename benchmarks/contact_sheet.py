"""Draws the random views of a recipe, so that one can look at them.

  python -m benchmarks.contact_sheet --config=configs/quickstart.py

Each row of the sheet is an image: the original, its evaluation crop, then its
large and small crops. Images come from scikit-learn (`--images=photographs` or
`digits`) or from a uint8 array [n, H, W, C] or [n, H, W] in an .npy file.
`--set field=value` changes a field of the views section.
"""

from __future__ import annotations

import argparse
import ast
import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax.plots import training_figure


def main() -> None:
  """Parses the command line and writes the sheet."""
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--config", help="a recipe; default: config.base()")
  parser.add_argument("--images", default="photographs")
  parser.add_argument("--num_images", type=int, default=6)
  parser.add_argument("--canvas", type=int, default=512)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--scale", type=int, default=1, help="enlarge pixels")
  parser.add_argument("--set", action="append", default=[], metavar="F=V")
  parser.add_argument("--out", default="contact_sheet.png")
  arguments = parser.parse_args()
  section = _load_recipe(arguments.config).views
  for change in arguments.set:
    field, value = change.split("=", 1)
    section.update_from_flattened_dict({field: ast.literal_eval(value)})
  settings = config_lib.build_views(section)
  images = load_images(arguments.images, arguments.num_images)
  sheet = contact_sheet(
    images, settings, canvas=arguments.canvas, seed=arguments.seed
  )
  sheet = sheet.repeat(arguments.scale, axis=0).repeat(arguments.scale, axis=1)
  Image.fromarray(sheet).save(arguments.out)
  print(f"{arguments.out}: {sheet.shape[1]} x {sheet.shape[0]} pixels")


def load_images(source: str, num_images: int) -> list[np.ndarray]:
  """Returns uint8 images [H, W, C] of a named set or of an .npy file."""
  if source == "photographs":
    from sklearn import datasets

    photographs = datasets.load_sample_images().images
    return [photographs[i % 2] for i in range(num_images)]
  if source == "digits":
    from sklearn import datasets

    digits = datasets.load_digits().images[:num_images]
    return list(np.round(digits * (255 / 16)).astype(np.uint8)[..., None])
  images = np.load(source, allow_pickle=False)[:num_images]
  return list(images if images.ndim == 4 else images[..., None])


def contact_sheet(
  images: list[np.ndarray],
  settings: config_lib.Views,
  *,
  canvas: int,
  seed: int,
) -> np.ndarray:
  """Draws all views of a few images.

  Args:
    images: uint8 [H, W, C] each.
    settings: the views section of a recipe.
    canvas: images are cut to this many pixels a side.
    seed: of the views' keys.

  Returns:
    uint8 [height, width, 3].
  """
  images = [image[:canvas, :canvas] for image in images]
  sizes = jnp.asarray([image.shape[:2] for image in images], jnp.int32)
  side = int(sizes.max())
  canvases = jnp.asarray(
    np.stack(
      [
        np.pad(
          image, [(0, side - length) for length in image.shape[:2]] + [(0, 0)]
        )
        for image in images
      ]
    )
  )
  blocks = []
  statistics = {"mean": settings.mean, "std": settings.std}
  for stream, spec in enumerate(settings.crops.values()):
    key = jax.random.fold_in(jax.random.key(seed), stream)
    keys = jax.random.split(key, (len(images), spec.count))
    draw = jax.jit(
      functools.partial(augment.multi_views, spec=spec, **statistics)
    )
    blocks.append(
      training_figure.to_levels(draw(keys, canvases, sizes), **statistics)
    )
  evaluated = augment.evaluation_view(
    canvases,
    sizes,
    resize=settings.evaluation.eval_resize,
    size=settings.evaluation.eval_size,
  )
  rows = []
  for index, image in enumerate(images):
    tiles = [image, np.round(np.asarray(evaluated[index])).astype(np.uint8)]
    tiles += [view for block in blocks for view in block[index]]
    rows.append(
      training_figure.join_tiles([_to_rgb(tile) for tile in tiles], axis=1)
    )
  return training_figure.join_tiles(rows, axis=0)


def _load_recipe(path):
  """Calls `get_config` of a recipe file, given as path or path:argument."""
  if path is None:
    return config_lib.base()
  path, _, argument = path.partition(":")
  spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(argument) if argument else module.get_config()


def _to_rgb(image):
  return np.broadcast_to(image, (*image.shape[:2], 3))


if __name__ == "__main__":
  main()
