"""Images of two kinds and the smallest recipe, for tests that fit."""

import pathlib

import numpy as np
from PIL import Image

from tests import tiny_recipe

RECIPE = str(pathlib.Path(tiny_recipe.__file__))
FIELDS = {
  "views.small.count": 0,
  "model.name": "small_resnet",
  "support.images_per_class": 2,
  "support.with_replacement": True,
  # No number of several devices divides it.
  "train.batch_size": 11,
  "train.epochs": 1,
}
COLOR = {"views.mean": (0.5,) * 3, "views.std": (0.25,) * 3}


def images(count=24, *, channels=1):
  """Dark images and bright ones in turn, uint8 [count, 8, 8, channels]."""
  rng = np.random.default_rng(0)
  pixels = rng.integers(0, 60, (count, 8, 8, channels), np.uint8)
  pixels[1::2] += 180
  return pixels


def labels(count=24, *, values=("dark", "bright"), every=3):
  """The class of each; every third image has none, None."""
  found = [values[i % 2] for i in range(count)]
  return [None if i % every == 2 else found[i] for i in range(count)]


def write(folder, count=24):
  """Writes images as files; returns their paths."""
  paths = []
  for i, pixels in enumerate(images(count, channels=3)):
    path = folder / f"{i:02}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((12 + i % 3, 14)).save(path)
    paths.append(str(path))
  return paths
