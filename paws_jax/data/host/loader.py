"""Reading and decoding of the rows of a data set, in parallel and in order.

A plan gives the rows of each step, and a loader their canvases in that order,
with any number of threads. An image that cannot be read does not end the stream
or shift later images: a substitute takes its place, or the run stops.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from paws_jax.data.host import decode
from paws_jax.data.host import image_reader


class Stream(NamedTuple):
  """Rows to read in every step."""

  # Returns the int32 [num_rows] rows of a step.
  plan: Callable[[int], np.ndarray]
  num_rows: int
  # Decoded images that are kept; None: there are none.
  cache: image_reader.Cache | None = None


class Canvases(NamedTuple):
  """Decoded images of a step, in the order of its rows."""

  # uint8 [n, S, S, 3].
  images: np.ndarray
  # int32 [n, 2]; zeros for a bad image, which `replace_bad` replaces.
  sizes: np.ndarray
  # int32 [n].
  rows: np.ndarray


class Loader(abc.ABC):
  """A reader of streams of canvases.

  Attributes:
    canvas_size: S, side of a canvas in pixels.
  """

  def __init__(
    self,
    images: image_reader.ImageReader,
    *,
    canvas_size: int,
    num_threads: int,
  ):
    """Keeps the settings; `images` reduces to `canvas_size`."""
    self._images = images
    self.canvas_size = canvas_size
    self._num_threads = num_threads

  @abc.abstractmethod
  def steps(
    self, streams: Mapping[str, Stream], first_step: int
  ) -> Iterator[dict[str, Canvases]]:
    """Yields the canvases of all streams, step by step and indefinitely."""

  def replace_bad(
    self, canvases: Canvases, candidates: Callable[[int], Iterable[int]]
  ) -> Canvases:
    """Replaces bad images by substitutes.

    Args:
      canvases: of a step.
      candidates: returns substitutes of a row, in the order of trial.

    Returns:
      Canvases; the same arrays if no image is bad.

    Raises:
      BadImageError: as in `ImageReader.image_or_substitute`.
    """
    bad = np.flatnonzero(canvases.sizes[:, 0] == 0)
    if not len(bad):
      return canvases
    images, sizes = canvases.images.copy(), canvases.sizes.copy()
    for place in bad:
      row = int(canvases.rows[place])
      pixels = self._images.image_or_substitute(row, candidates(row))
      images[place], sizes[place] = decode.on_canvas(pixels, self.canvas_size)
    return Canvases(images, sizes, canvases.rows)
