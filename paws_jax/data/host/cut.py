"""Crops that are cut and resized on the host, from the boxes of the device.

A box depends on the key of its view and on the size of the image. What depends
on the key is drawn for all images of a step before they are read, by the same
functions as on the device; the box is found when the size is known.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax import tf_runtime
from paws_jax.augment import crop
from paws_jax.data import sampling

if TYPE_CHECKING:
  import tensorflow

# The name under which the crops of supports are kept.
SUPPORT = "support"


class CropSpecs(NamedTuple):
  """The crops of a step.

  Attributes:
    unlabelled: in the order in which views are numbered.
    support: of the labelled images; its count is not read.
    num_support_views: V.
  """

  unlabelled: Mapping[str, config_lib.ViewSpec]
  support: config_lib.ViewSpec
  num_support_views: int


class Draws(NamedTuple):
  """What is drawn for the V views of n images; first axes are the images."""

  # float32 [n, V, 4, tries]; see `crop.crop_tries`.
  tries: np.ndarray
  # bool [n, V].
  flips: np.ndarray

  def of_image(self, place: int) -> Draws:
    """Returns what is drawn for one image, without its axis."""
    return Draws(self.tries[place], self.flips[place])


class Cutter:
  """Draws, cuts and resizes the crops of one stream of images.

  Attributes:
    num_views: V, crops of an image under all names.
  """

  def __init__(
    self,
    specs: Mapping[str, tuple[config_lib.ViewSpec, int]],
    *,
    seed: int,
    stream: int,
  ):
    """Keeps the settings.

    Args:
      specs: of each name, in the order of the views' numbers, the crops and how
        many there are of an image.
      seed: the run's.
      stream: of `sampling`, from which keys derive.
    """
    self._seed = seed
    self._specs = tuple((name, *spec) for name, spec in specs.items())
    self._stream = stream
    self.num_views = sum(count for _, _, count in self._specs)

  def draw(self, ids: np.ndarray, numbers: np.ndarray, step: int) -> Draws:
    """Draws the crops of a step, on the default device.

    Args:
      ids: int32 [n], rows of the training set.
      numbers: int32 [n, V], numbers of the views within the step.
      step: from 0.
    """
    specs = tuple((spec, count) for _, spec, count in self._specs)
    drawn = _draw(
      ids,
      numbers,
      np.int32(self._seed),
      np.int32(step),
      specs=specs,
      stream=self._stream,
    )
    return Draws(*map(np.asarray, drawn))

  def shapes(self) -> dict[str, tuple[int, ...]]:
    """Returns the shape of an image's crops by name."""
    return {
      name: (count, spec.size, spec.size, 3)
      for name, spec, count in self._specs
    }

  def boxes(self, tries: np.ndarray, height: int, width: int) -> np.ndarray:
    """Returns the boxes of an image, int32 [V, 4]: top, left, height, width.

    Args:
      tries: float32 [V, 4, tries] of the image.
      height: of the image.
      width: of the image.
    """
    boxes, first = [], 0
    for _, spec, count in self._specs:
      sizes = np.tile(np.array([[height, width]], np.int32), (count, 1))
      part = tries[first : first + count]
      boxes.append(
        crop.fit_boxes(part, sizes, aspect_ratio=spec.aspect_ratio, xp=np)
      )
      first += count
    return np.concatenate(boxes)

  def cut(self, pixels: np.ndarray, draws: Draws) -> dict[str, np.ndarray]:
    """Cuts the crops of an image with Pillow.

    Args:
      pixels: uint8 [h, w, 3], not empty.
      draws: of the image.

    Returns:
      uint8 [count, size, size, 3] by name.
    """
    from PIL import Image

    boxes = self.boxes(draws.tries, *pixels.shape[:2])
    crops, view = {}, 0
    for name, shape in self.shapes().items():
      crops[name] = np.empty(shape, np.uint8)
      count, size, *_ = shape
      for place in range(count):
        top, left, height, width = boxes[view]
        # Cut before it is resized: pixels outside of a box must not be read.
        part = pixels[top : top + height, left : left + width]
        resized = np.asarray(
          Image.fromarray(part).resize(
            (size, size), Image.Resampling.BILINEAR, reducing_gap=None
          )
        )
        mirrored = draws.flips[view]
        crops[name][place] = resized[:, ::-1] if mirrored else resized
        view += 1
    return crops

  def cut_in_graph(
    self,
    image: tensorflow.Tensor,
    tries: tensorflow.Tensor,
    flips: tensorflow.Tensor,
  ) -> dict[str, tensorflow.Tensor]:
    """Cuts the crops of an image in a TensorFlow graph, as `cut`.

    Args:
      image: uint8 [h, w, 3]; zeros are the crops of an empty one.
      tries: float32 [V, 4, tries].
      flips: bool [V].
    """
    tf = tf_runtime.load()

    def cut() -> dict[str, tensorflow.Tensor]:
      height, width = tf.unstack(tf.shape(image)[:2])
      boxes = tf.numpy_function(self.boxes, [tries, height, width], tf.int32)
      boxes = tf.ensure_shape(boxes, (self.num_views, 4))
      crops, view = {}, 0
      for name, (count, *shape) in self.shapes().items():
        views = range(view, view + count)
        parts = [_resize(image, boxes[v], flips[v], shape) for v in views]
        crops[name] = tf.stack(parts)
        view += count
      return crops

    def nothing() -> dict[str, tensorflow.Tensor]:
      shapes = self.shapes().items()
      return {name: tf.zeros(shape, tf.uint8) for name, shape in shapes}

    return tf.cond(tf.size(image) > 0, cut, nothing)


def _resize(image: Any, box: Any, flip: Any, shape: list[int]) -> Any:
  """Cuts a box and resizes it, antialiased as Pillow does."""
  tf = tf_runtime.load()
  top, left, height, width = tf.unstack(box)
  part = image[top : top + height, left : left + width]
  resized = tf.image.resize(part, shape[:2], "bilinear", antialias=True)
  levels = tf.cast(tf.clip_by_value(resized + 0.5, 0.0, 255.0), tf.uint8)
  levels = tf.ensure_shape(levels, shape)
  return tf.where(flip, tf.reverse(levels, [1]), levels)


def cutters(crops: CropSpecs | None, *, seed: int) -> dict[str, Cutter]:
  """Returns the cutters of "unlabelled" and "support"; none without crops."""
  if crops is None:
    return {}
  unlabelled = {
    name: (spec, spec.count) for name, spec in crops.unlabelled.items()
  }
  support = {SUPPORT: (crops.support, crops.num_support_views)}
  return {
    "unlabelled": Cutter(
      unlabelled, seed=seed, stream=sampling.UNLABELLED_VIEWS
    ),
    "support": Cutter(support, seed=seed, stream=sampling.SUPPORT_VIEWS),
  }


# Compiled once for all pipelines.
@functools.partial(jax.jit, static_argnames=("specs", "stream"))
def _draw(
  ids: jax.Array,
  numbers: jax.Array,
  seed: jax.Array,
  step: jax.Array,
  *,
  specs: tuple[tuple[config_lib.ViewSpec, int], ...],
  stream: int,
) -> tuple[jax.Array, jax.Array]:
  keys = sampling.view_keys(ids, numbers, seed=seed, stream=stream, step=step)
  drawn, first = [], 0
  for spec, count in specs:
    drawn.append(augment.crop_tries(keys[:, first : first + count], spec))
    first += count
  tries, flips = zip(*drawn, strict=True)
  return jax.numpy.concatenate(tries, 1), jax.numpy.concatenate(flips, 1)
