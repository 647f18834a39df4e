"""Recipes on images that are at hand: their own, or random ones."""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from paws_jax import experiment as experiment_lib
from paws_jax.data import sources


def experiment(
  config: ml_collections.ConfigDict,
  *,
  always_random: bool = False,
  devices: Sequence[jax.Device] | None = None,
) -> experiment_lib.Experiment:
  """Builds a recipe, changed so that its images lie in memory.

  Args:
    config: a validated recipe.
    always_random: random images also where the recipe's are at hand.
    devices: default all.

  Raises:
    ValueError, TypeError: as `experiment.create`.
  """
  if config.data.pipeline == "host":
    # Reading is measured by benchmarks/input.py: here the device alone.
    config.data.pipeline = "memory"
    config.data.labels_per_class = config.support.images_per_class
    config.data.labels_fraction = 0.0
    config.support.classes_per_step = config.support.classes_per_step or 10
    arrays = _random_arrays(config, side=config.data.canvas_size)
  elif always_random:
    arrays = _random_arrays(config)
  else:
    try:
      arrays = sources.load(
        config.data.source,
        directory=config.data.dir,
        tfds_name=config.data.tfds_name,
      )
    except (FileNotFoundError, ImportError) as error:
      reason = str(error).splitlines()[0]
      print(f"data are not at hand ({reason}): random images instead")
      arrays = _random_arrays(config)
  if arrays.name == "random":
    config.data.labels_file = ""
  return experiment_lib.create(config, arrays=arrays, devices=devices)


def _random_arrays(
  config: ml_collections.ConfigDict, *, side: int = 0
) -> sources.Arrays:
  """Random images and labels that a recipe can be run on, as few as will do."""
  classes = config.support.classes_per_step
  labels = max(config.data.labels_per_class, config.support.images_per_class)
  # Whole calls, so that intervals fit whatever the batch size.
  per_call = config.train.batch_size * config.train.steps_per_call
  num_images = math.ceil(classes * labels / per_call) * per_call
  side = side or max(config.data.image_size, config.views.eval_resize)
  side = side or config.views.large_size
  rng = np.random.default_rng(0)

  def draw(size):
    shape = (size, side, side, len(config.views.mean))
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.permutation(np.arange(size, dtype=np.int32) % classes)

  return sources.Arrays(
    "random",
    tuple(f"class {i}" for i in range(classes)),
    *draw(num_images),
    *draw(classes),
  )
