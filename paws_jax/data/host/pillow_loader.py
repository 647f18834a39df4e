"""Reads and decodes rows of a data set with Pillow, in threads."""

from __future__ import annotations

import collections
import concurrent.futures
import itertools
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np

from paws_jax import errors
from paws_jax.data.host import image_reader
from paws_jax.data.host import loader

# Steps that are read ahead, so that no thread waits at the end of a step.
_AHEAD = 2
# Images of a step, and the tasks that read them.
_Started = tuple[loader.Images, list[concurrent.futures.Future[None]]]


class PillowLoader(loader.Loader):
  """A loader that needs no TensorFlow.

  Pillow lets other threads run while it decodes.
  """

  def steps(
    self, streams: Mapping[str, loader.Stream], first_step: int
  ) -> Iterator[dict[str, loader.Images]]:
    """Yields the images of all streams, step by step and indefinitely."""
    pool = concurrent.futures.ThreadPoolExecutor(self._num_threads)
    reading: collections.deque[dict[str, _Started]] = collections.deque()
    try:
      for step in itertools.count(first_step):
        reading.append(
          {name: self._start(pool, streams[name], step) for name in streams}
        )
        if len(reading) > _AHEAD:
          yield {
            name: _finished(*parts) for name, parts in reading.popleft().items()
          }
    finally:
      pool.shutdown(cancel_futures=True)

  def _start(
    self,
    pool: concurrent.futures.Executor,
    stream: loader.Stream,
    step: int,
  ) -> _Started:
    """Starts to read the rows of a step, each by a task of its own."""
    rows = stream.plan(step).astype(np.int32)
    draws = stream.draws(step)
    loaded = loader.Images(
      images=loader.empty(len(rows), self.canvas_size, stream.cutter),
      sizes=np.zeros((len(rows), 2), np.int32),
      rows=rows,
    )

    def read(place: int) -> None:
      pixels = self._pixels(int(rows[place]), stream.cache)
      loaded.sizes[place] = pixels.shape[:2]
      if pixels.size:
        loader.put(loaded.images, place, pixels, stream.cutter, draws)

    return loaded, [pool.submit(read, place) for place in range(len(rows))]

  def _pixels(self, row: int, cache: image_reader.Cache | None) -> np.ndarray:
    """Gives uint8 [h, w, 3] from cache or file; [0, 0, 3] for a bad image."""
    cached = image_reader.NO_IMAGE if cache is None else cache.get(row)
    if cached.size:
      return cached
    try:
      pixels = self._images.image(row)
    except errors.BadImageError:
      # `replace_bad` finds the error again, with its reason.
      return image_reader.NO_IMAGE
    return pixels if cache is None else cache.put(row, pixels)


def _finished(
  loaded: loader.Images, reads: list[concurrent.futures.Future[None]]
) -> loader.Images:
  for read in reads:
    read.result()
  return loaded
