"""Reading and decoding of the rows of a data set, in parallel and in order.

A plan gives the rows of each step, and a loader their images in that order,
with any number of threads. An image that cannot be read does not end the stream
or shift later images: a substitute takes its place, or the run stops.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from paws_jax.data.host import cut
from paws_jax.data.host import image_reader
from paws_jax.parallel import cpu_devices


class Stream(NamedTuple):
  """Rows to read in every step."""

  # Returns the int32 [num_rows] rows of a step.
  plan: Callable[[int], np.ndarray]
  num_rows: int
  # Decoded images that are kept; None: there are none.
  cache: image_reader.Cache | None = None
  # Cuts crops, with what it has drawn for the rows of a step; None: canvases.
  cutter: cut.Cutter | None = None
  draw: Callable[[int], cut.Draws] | None = None

  def draws(self, step: int) -> cut.Draws | None:
    """Returns what is drawn for the crops of a step; None for canvases."""
    return None if self.draw is None else self.draw(step)


class Images(NamedTuple):
  """Decoded images of a step, or their crops, in the order of its rows."""

  # uint8 [n, S, S, 3] canvases; crops by name.
  images: np.ndarray | dict[str, np.ndarray]
  # int32 [n, 2]; zeros for a bad image, which `replace_bad` replaces.
  sizes: np.ndarray
  # int32 [n].
  rows: np.ndarray


class Loader(abc.ABC):
  """A reader of streams of images.

  Attributes:
    canvas_size: S, side of a canvas in pixels.
  """

  def __init__(
    self,
    images: image_reader.ImageReader,
    *,
    side: int,
    num_threads: int | None,
  ):
    """Keeps the settings; `images` reduces to `side`."""
    self._images = images
    self.canvas_size = side
    self._num_threads = num_threads or cpu_devices.num_cores()

  @abc.abstractmethod
  def steps(
    self, streams: Mapping[str, Stream], first_step: int
  ) -> Iterator[dict[str, Images]]:
    """Yields the images of all streams, step by step and indefinitely."""

  def replace_bad(
    self,
    loaded: Images,
    candidates: Callable[[int], Iterable[int]],
    *,
    stream: Stream,
    step: int,
  ) -> Images:
    """Replaces bad images by substitutes.

    Args:
      loaded: images of a step.
      candidates: returns substitutes of a row, in the order of trial.
      stream: theirs.
      step: from 0.

    Returns:
      Images; the same arrays if none is bad.

    Raises:
      BadImageError: as in `ImageReader.image_or_substitute`.
    """
    bad = np.flatnonzero(loaded.sizes[:, 0] == 0)
    if not len(bad):
      return loaded
    draws = stream.draws(step)
    images = jax.tree.map(np.copy, loaded.images)
    sizes = loaded.sizes.copy()
    for place in map(int, bad):
      row = int(loaded.rows[place])
      pixels = self._images.image_or_substitute(row, candidates(row))
      sizes[place] = pixels.shape[:2]
      put(images, place, pixels, stream.cutter, draws)
    return Images(images, sizes, loaded.rows)


def empty(
  num_rows: int, side: int, cutter: cut.Cutter | None
) -> np.ndarray | dict[str, np.ndarray]:
  """Returns black canvases, or crops, as `Images` has them."""
  if cutter is None:
    return np.zeros((num_rows, side, side, 3), np.uint8)
  return {
    name: np.zeros((num_rows, *shape), np.uint8)
    for name, shape in cutter.shapes().items()
  }


def put(
  images: Any,
  place: int,
  pixels: np.ndarray,
  cutter: cut.Cutter | None,
  draws: cut.Draws | None,
) -> None:
  """Puts an image, or its crops, into those of a step.

  Args:
    images: of `Images`, as `empty` makes them.
    place: of the image.
    pixels: uint8 [h, w, 3], not empty.
    cutter: None: the image is put on a canvas.
    draws: of the step, with a cutter.
  """
  if cutter is None or draws is None:
    height, width = pixels.shape[:2]
    images[place, :height, :width] = pixels
    return
  for name, crops in cutter.cut(pixels, draws.of_image(place)).items():
    images[name][place] = crops
