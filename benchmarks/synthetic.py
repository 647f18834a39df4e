"""Recipes on images that are at hand: their own, or random ones."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.plan import abstract_step
from paws_jax.training import experiment as experiment_lib

# Where a recipe asks for all classes, and how many there are is not known.
_NUM_CLASSES = 10


def experiment(
  config: ml_collections.ConfigDict,
  *,
  always_random: bool = False,
  whole_epoch: bool = False,
  devices: Sequence[jax.Device] | None = None,
) -> experiment_lib.Experiment:
  """Builds a recipe, changed so that its images lie in memory.

  Args:
    config: a validated recipe; changed in place where images are random.
    always_random: random images also where the recipe's are at hand.
    whole_epoch: as many random images as the recipe's data are known to have,
      so that its epochs have their length; where that is not known says so.
      Default: as few as will do.
    devices: default all.

  Raises:
    ValueError, TypeError: as `experiment.create`.
  """
  if config.data.pipeline == "host":
    # Reading is measured by benchmarks/input/input.py: here the device alone.
    config.data.pipeline = "memory"
    config.data.labels_per_class = config.support.images_per_class
    config.data.labels_fraction = 0.0
    sizes, arrays = None, None
    side = config.data.canvas_size
  else:
    sizes = _known_sizes(config.data)
    arrays = None if always_random else _own_arrays(config.data)
    side = config.data.image_size
  if arrays is None:
    if whole_epoch and sizes is None:
      print(
        "an epoch is one of random images, as few as will do: the recipe's are "
        "of several sizes, or how many there are is not known"
      )
    arrays = _random_arrays(config, sizes, side=side, whole_epoch=whole_epoch)
    config.data.labels_file = ""
    config.support.classes_per_step = arrays.num_classes
  # Fields may contradict each other now: a folder is not in memory otherwise.
  return experiment_lib.create(
    config_lib.build(config), arrays=arrays, devices=devices
  )


def _own_arrays(section: ml_collections.ConfigDict) -> arrays_lib.Arrays | None:
  """The data of a recipe that has them in memory; None: not at hand."""
  try:
    return arrays_lib.load(
      section.source, directory=section.dir, tfds_name=section.tfds_name
    )
  except (FileNotFoundError, ImportError) as error:
    reason = str(error).splitlines()[0]
    print(f"data are not at hand ({reason}): random images instead")
    return None


def _known_sizes(
  section: ml_collections.ConfigDict,
) -> abstract_step.Sizes | None:
  """Published sizes of data whose images are of one shape; None: not known.

  Of idx files those of MNIST, which its family shares.
  """
  name = {
    "idx": "mnist",
    "tfds": re.split("[/:]", section.tfds_name)[0],
  }.get(section.source)
  sizes = abstract_step.KNOWN.get(name)
  return sizes if sizes is not None and sizes.shape is not None else None


def _random_arrays(
  config: ml_collections.ConfigDict,
  sizes: abstract_step.Sizes | None,
  *,
  side: int,
  whole_epoch: bool,
) -> arrays_lib.Arrays:
  """Random images and labels that a recipe can be run on.

  Args:
    config: of the recipe.
    sizes: of its data; None: not known.
    side: of the images in pixels; 0: as they are, or as views need them.
    whole_epoch: as of `experiment`.
  """
  known_classes = _NUM_CLASSES if sizes is None else sizes.num_classes
  classes = config.support.classes_per_step or known_classes
  if whole_epoch and sizes is not None:
    num_images = sizes.num_images
    # Not what evaluation enlarges them to: there are many.
    side = side or sizes.shape[0]
  else:
    labels = max(config.data.labels_per_class, config.support.images_per_class)
    # Whole calls, so that intervals fit whatever the batch size.
    per_call = config.train.batch_size * config.train.steps_per_call
    num_images = math.ceil(classes * labels / per_call) * per_call
    view = config_lib.build_views(config.views).evaluation
    side = side or view.eval_resize or view.eval_size
  rng = np.random.default_rng(0)

  def draw(size):
    shape = (size, side, side, len(config.views.mean))
    images = rng.integers(0, 256, shape, dtype=np.uint8)
    return images, rng.permutation(np.arange(size, dtype=np.int32) % classes)

  return arrays_lib.Arrays(
    "random",
    tuple(f"class {i}" for i in range(classes)),
    *draw(num_images),
    *draw(classes),
  )
