"""Reads and decodes rows of a data set in parallel and in order, with tf.data.

A plan gives the rows of each step, and the stream their canvases in that order,
with any number of threads. An image that cannot be read does not end the stream
or shift later images: a substitute takes its place, or the run stops.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from paws_jax import errors
from paws_jax import tf_runtime
from paws_jax.data.host import decode
from paws_jax.data.host import image_reader
from paws_jax.data.sources import catalog
from paws_jax.runs import files as files_lib

if TYPE_CHECKING:
  import tensorflow as tf


class Loader:
  """Reader of streams of canvases, with one batch per step."""

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
    # Rows whose files are known to be regular ones.
    self._regular = np.zeros(len(images.reader), bool)

  def stream(
    self,
    plan: Callable[[int], np.ndarray],
    *,
    num_rows: int,
    first_step: int,
    cache: image_reader.Cache | None = None,
  ) -> tf.data.Dataset:
    """Returns an infinite stream of the canvases of each step.

    Args:
      plan: returns the int32 [num_rows] rows of a step.
      num_rows: n, rows per step.
      first_step: first step of the stream.
      cache: cache of decoded images; None: there is none.

    Returns:
      A data set of (uint8 [n, S, S, 3], int32 [n, 2] sizes, int32 [n] rows).
      A bad image has size [0, 0]; `replace_bad` replaces it.
    """
    tf = tf_runtime.load()
    endless = np.iinfo(np.int64).max
    steps = tf.data.Dataset.range(first_step, endless)

    @tf.autograph.experimental.do_not_convert
    def planned(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
      rows, paths = tf.numpy_function(
        lambda step: self._with_paths(plan(int(step))),
        [step],
        (tf.int32, tf.string),
      )
      return tf.ensure_shape(rows, [num_rows]), tf.ensure_shape(
        paths, [num_rows]
      )

    @tf.autograph.experimental.do_not_convert
    def load(
      row: tf.Tensor, path: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
      image = self._load(row, path, cache)
      size = tf.shape(image)[:2]
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

  def options(self) -> tf.data.Options:
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

  def replace_bad(
    self,
    images: np.ndarray,
    sizes: np.ndarray,
    rows: np.ndarray,
    *,
    candidates: Callable[[int], Iterable[int]],
  ) -> tuple[np.ndarray, np.ndarray]:
    """Replaces the bad images of `stream` by substitutes.

    Args:
      images: uint8 [n, S, S, 3].
      sizes: int32 [n, 2], zeros for bad images.
      rows: int32 [n].
      candidates: returns substitutes of a row, in the order of trial.

    Returns:
      Images and sizes; the same arrays if no image is bad.

    Raises:
      BadImageError: as in `ImageReader.image_or_substitute`.
    """
    bad = np.flatnonzero(sizes[:, 0] == 0)
    if not len(bad):
      return images, sizes
    images, sizes = images.copy(), sizes.copy()
    for place in bad:
      row = int(rows[place])
      pixels = self._images.image_or_substitute(row, candidates(row))
      images[place], sizes[place] = decode.on_canvas(pixels, self.canvas_size)
    return images, sizes

  def _with_paths(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rows with the paths that TensorFlow reads, "" for none."""
    # TensorFlow needs bytes in an array of objects.
    paths = np.array([os.fsencode(self._path(row)) for row in rows], object)
    return rows.astype(np.int32), paths

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
    self, row: tf.Tensor, path: tf.Tensor, cache: image_reader.Cache | None
  ) -> tf.Tensor:
    """Loads uint8 [h, w, 3] from cache or file; [0, 0, 3] for a bad image."""
    if cache is None:
      return self._decode(row, path)
    image = _call_python(cache.get, row)
    return self._or_else(
      image,
      lambda: _call_python(cache.put, row, self._decode(row, path)),
    )

  def _decode(self, row: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
    """Decodes in the graph if possible, without Python's lock."""
    tf = tf_runtime.load()

    @tf.autograph.experimental.do_not_convert
    def plain(row: tf.Tensor, path: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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

  def _content(self, row: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
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
    self, image: tf.Tensor, otherwise: Callable[[], tf.Tensor]
  ) -> tf.Tensor:
    tf = tf_runtime.load()
    there = tf.size(image) > 0
    image = tf.cond(there, lambda: image, otherwise)
    return tf.ensure_shape(image, (None, None, 3))


def _call_python(
  function: Callable[..., np.ndarray], *arguments: tf.Tensor
) -> tf.Tensor:
  """Calls a Python function that returns an image, in a graph."""
  tf = tf_runtime.load()
  image = tf.numpy_function(function, arguments, tf.uint8)
  return tf.ensure_shape(image, (None, None, 3))
