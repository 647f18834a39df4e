"""Reads and decodes rows of a data set with tf.data."""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import jax
import numpy as np

from paws_jax import errors
from paws_jax import tf_runtime
from paws_jax.augment import crop
from paws_jax.data.host import decode
from paws_jax.data.host import image_reader
from paws_jax.data.host import loader
from paws_jax.data.sources import catalog
from paws_jax.runs import files as files_lib

if TYPE_CHECKING:
  import tensorflow


class TensorFlowLoader(loader.Loader):
  """A loader that decodes ordinary JPEG files without Python's lock."""

  def __init__(self, images: image_reader.ImageReader, **settings: Any):
    super().__init__(images, **settings)
    # Rows whose files are known to be regular ones.
    self._regular = np.zeros(len(images.reader), bool)

  def steps(
    self, streams: Mapping[str, loader.Stream], first_step: int
  ) -> Iterator[dict[str, loader.Images]]:
    """Yields the images of all streams, step by step and indefinitely."""
    tf = tf_runtime.load()
    parts = {
      name: self._stream(stream, first_step) for name, stream in streams.items()
    }
    steps = tf.data.Dataset.zip(parts).prefetch(1)
    for step in steps.with_options(self._options()):
      # Views of TensorFlow's memory, which they keep alive: nothing is copied.
      yield {
        name: loader.Images(
          *jax.tree.map(lambda x: np.asarray(memoryview(x)), step[name])
        )
        for name in streams
      }

  def _stream(
    self, stream: loader.Stream, first_step: int
  ) -> tensorflow.data.Dataset:
    """Returns an infinite data set of the fields of `loader.Images`."""
    tf = tf_runtime.load()
    cutter, num_rows = stream.cutter, stream.num_rows
    shapes: list[tuple[int, ...]] = [(), ()]
    kinds = [tf.int32, tf.string]
    if cutter is not None:
      # Nothing is drawn for canvases: empty tensors crash tf.data.
      shapes += [(cutter.num_views, 4, crop.CROP_TRIES), (cutter.num_views,)]
      kinds += [tf.float32, tf.bool]
    endless = np.iinfo(np.int64).max
    steps = tf.data.Dataset.range(first_step, endless)

    @tf.autograph.experimental.do_not_convert
    def planned(step: tensorflow.Tensor) -> tuple[tensorflow.Tensor, ...]:
      parts = tf.numpy_function(
        lambda step: self._planned(stream, int(step)), [step], kinds
      )
      return tuple(
        tf.ensure_shape(part, (num_rows, *shape))
        for part, shape in zip(parts, shapes, strict=True)
      )

    @tf.autograph.experimental.do_not_convert
    def load(
      row: tensorflow.Tensor,
      path: tensorflow.Tensor,
      *draws: tensorflow.Tensor,
    ) -> tuple[Any, tensorflow.Tensor, tensorflow.Tensor]:
      image = self._load(row, path, stream.cache)
      size = tf.shape(image)[:2]
      if cutter is not None:
        return cutter.cut_in_graph(image, *draws), size, row
      missing = self.canvas_size - size
      image = tf.pad(image, [[0, missing[0]], [0, missing[1]], [0, 0]])
      side = self.canvas_size
      return tf.ensure_shape(image, (side, side, 3)), size, row

    return (
      steps.map(planned)
      .prefetch(2)
      .unbatch()
      .map(load, num_parallel_calls=self._num_threads, deterministic=True)
      .batch(num_rows, drop_remainder=True)
    )

  def _options(self) -> tensorflow.data.Options:
    """Returns options of tf.data for the entire pipeline."""
    tf = tf_runtime.load()
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = self._num_threads
    # The device determines the pace; autotuning would only use threads.
    options.autotune.enabled = False
    # No further batches are to be prefetched.
    options.experimental_optimization.inject_prefetch = False
    return options

  def _planned(
    self, stream: loader.Stream, step: int
  ) -> tuple[np.ndarray, ...]:
    """Returns rows, the paths that TensorFlow reads ("": none), and draws."""
    rows = stream.plan(step)
    # TensorFlow needs bytes in an array of objects.
    paths = np.array([os.fsencode(self._path(row)) for row in rows], object)
    draws = stream.draws(step)
    return rows.astype(np.int32), paths, *(draws or ())

  def _path(self, row: int) -> str:
    """Returns the path of a row's file; "" if it is not a regular file."""
    reader = self._images.reader
    if not isinstance(reader, catalog.Files):
      return ""
    path = reader.path(row)
    if not self._regular[row]:
      # TensorFlow would wait for the end of a pipe or of a device.
      try:
        files_lib.check_regular(path)
      except OSError:
        return ""
      self._regular[row] = True
    return path

  def _load(
    self,
    row: tensorflow.Tensor,
    path: tensorflow.Tensor,
    cache: image_reader.Cache | None,
  ) -> tensorflow.Tensor:
    """Loads uint8 [h, w, 3] from cache or file; [0, 0, 3] for a bad image."""
    if cache is None:
      return self._decode(row, path)
    image = _call_python(cache.get, row)
    return self._or_else(
      image,
      lambda: _call_python(cache.put, row, self._decode(row, path)),
    )

  def _decode(
    self, row: tensorflow.Tensor, path: tensorflow.Tensor
  ) -> tensorflow.Tensor:
    """Decodes in the graph if possible, without Python's lock."""
    tf = tf_runtime.load()

    @tf.autograph.experimental.do_not_convert
    def plain(
      row: tensorflow.Tensor, path: tensorflow.Tensor
    ) -> tuple[tensorflow.Tensor, tensorflow.Tensor]:
      content = self._content(row, path)
      image = decode.plain_jpeg(
        content,
        canvas_size=self.canvas_size,
        max_pixels=self._images.max_pixels,
        white_level=self._images.white_level,
      )
      return image, content

    # An error ends a data set: so each image has its own, which is empty after
    # an error.
    nothing = tf.data.Dataset.from_tensors(
      (tf.constant(image_reader.NO_IMAGE), tf.constant(b""))
    )
    image, content = (
      tf.data.Dataset.from_tensors((row, path))
      .map(plain)
      .ignore_errors()
      .concatenate(nothing)
      .take(1)
      .get_single_element()
    )
    return self._or_else(
      image, lambda: _call_python(self._decode_with_pillow, row, content)
    )

  def _content(
    self, row: tensorflow.Tensor, path: tensorflow.Tensor
  ) -> tensorflow.Tensor:
    tf = tf_runtime.load()
    if isinstance(self._images.reader, catalog.Files):
      return tf.io.read_file(path)
    content = tf.numpy_function(
      lambda row: self._images.content(int(row)), [row], tf.string
    )
    return tf.ensure_shape(content, ())

  def _decode_with_pillow(self, row: np.ndarray, content: bytes) -> np.ndarray:
    """Decodes `content`; reads it first if it is empty after a failure."""
    try:
      return self._images.image(int(row), content)
    except errors.BadImageError:
      # `replace_bad` finds the error again, with its reason.
      return image_reader.NO_IMAGE

  def _or_else(
    self, image: tensorflow.Tensor, otherwise: Callable[[], tensorflow.Tensor]
  ) -> tensorflow.Tensor:
    tf = tf_runtime.load()
    there = tf.size(image) > 0
    image = tf.cond(there, lambda: image, otherwise)
    return tf.ensure_shape(image, (None, None, 3))


def _call_python(
  function: Callable[..., np.ndarray], *arguments: tensorflow.Tensor
) -> tensorflow.Tensor:
  """Calls a Python function that returns an image, in a graph."""
  tf = tf_runtime.load()
  image = tf.numpy_function(function, arguments, tf.uint8)
  return tf.ensure_shape(image, (None, None, 3))
