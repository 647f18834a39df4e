"""Images that a user gives, of whatever kind, decoded batch by batch."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import os
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax.classifier import preprocessing as preprocessing_lib
from paws_jax.parallel import cpu_devices

_ACCEPTED = (
  "give a uint8 array [n, height, width, channels], or a list of uint8 arrays "
  "[height, width, channels], Pillow images or paths"
)
_REMEDY = "Repair it, or leave it out (move it out of the folder)"
# Of arrays that hold objects or texts, such as a column of paths.
_LIST_KINDS = "OUST"
# Batches that are decoded while one is embedded.
_AHEAD = 2
# An image that is being decoded: its place, and pixels or an error.
_Future = concurrent.futures.Future[tuple[int, Any]]


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
  """Images that follow each other in a list.

  Attributes:
    pixels: uint8 [m, H, W, Ch], those that could be read.
    places: int [m], where they stand in the list.
    bad: reasons why others could not be read, by place.
  """

  pixels: np.ndarray
  places: np.ndarray
  bad: Mapping[int, str]


class ImageList:
  """A list of images, checked when it is made, decoded when it is read."""

  def __init__(
    self,
    images: Any,
    preprocessing: preprocessing_lib.Preprocessing,
    *,
    names: Sequence[str] | None = None,
  ):
    """Refuses what are no images; reads none of them.

    Args:
      images: uint8 [n, H, W, Ch], Ch 1 or 3; or uint8 arrays [h, w] or
        [h, w, Ch], Pillow images, or paths of files, in a list, an array, a
        column of a table, or anything else that gives one after the other.
      preprocessing: what they are to become.
      names: of each, for messages; default paths or "image 3".

    Raises:
      TypeError: another kind, or another dtype.
      ValueError: no image, or another number of channels.
    """
    images = _listed(images)
    if not len(images):
      raise errors.InputError("images is empty: give at least one.")
    self._images = images
    self._names = names
    self._preprocessing = preprocessing
    if not isinstance(images, np.ndarray):
      for i, image in enumerate(images):
        _check_item(image, self.name(i))

  def __len__(self) -> int:
    """Number of images."""
    return len(self._images)

  def name(self, place: int) -> str:
    """What a message calls an image."""
    if self._names is not None:
      return self._names[place]
    image = (
      None if isinstance(self._images, np.ndarray) else self._images[place]
    )
    if isinstance(image, (str, os.PathLike)):
      return os.fspath(image)
    return f"image {place}"

  def batches(self, size: int, *, skip_bad: bool = False) -> Iterator[Batch]:
    """Decodes on all cores, ahead of the reader.

    Args:
      size: images in a batch; the last one may have fewer.
      skip_bad: whether an image that cannot be read is left out.

    Raises:
      errors.BadImageError: without `skip_bad`, naming such an image.
    """
    images = self._images
    starts = range(0, len(self), size)
    if isinstance(images, np.ndarray) and self._as_they_are():
      for first in starts:
        pixels = images[first : first + size]
        yield Batch(pixels, np.arange(first, first + len(pixels)), {})
      return
    waiting: collections.deque[list[_Future]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores())
    try:
      for first in starts:
        stop = min(first + size, len(self))
        waiting.append([pool.submit(self._read, i) for i in range(first, stop)])
        if len(waiting) > _AHEAD:
          yield self._batch(waiting.popleft(), skip_bad)
      while waiting:
        yield self._batch(waiting.popleft(), skip_bad)
    finally:
      pool.shutdown(cancel_futures=True)

  def _as_they_are(self) -> bool:
    settings = self._preprocessing
    return self._images.shape[1:] == settings.shape and not settings.on_disk

  def _read(self, place: int) -> tuple[int, Any]:
    """Place and uint8 [H, W, Ch], or the error."""
    try:
      name = self.name(place)
      return place, self._preprocessing.pixels(self._images[place], name)
    except errors.BadImageError as error:
      return place, error

  def _batch(self, futures: Sequence[_Future], skip_bad: bool) -> Batch:
    good, bad = {}, {}
    for future in futures:
      place, result = future.result()
      if not isinstance(result, errors.BadImageError):
        good[place] = result
      elif skip_bad:
        bad[place] = result.reason
      else:
        # Nothing is trained here, as the error's own remedy has it.
        raise errors.BadImageError(result.name, result.reason, remedy=_REMEDY)
    pixels = np.zeros((len(good), *self._preprocessing.shape), np.uint8)
    for row, image in zip(pixels, good.values(), strict=True):
      row[...] = image
    return Batch(pixels, np.fromiter(good, np.int64, len(good)), bad)


def _listed(images: Any) -> Sequence[Any] | np.ndarray:
  """A sequence of images, or an array of pixels."""
  if isinstance(images, (str, bytes, os.PathLike)):
    raise TypeError(
      f"images is one path, {os.fspath(images)!r}: give a list of them."
    )
  if _is_pillow(images):
    raise TypeError("images is one Pillow image: give a list of them.")
  if isinstance(images, Mapping) or hasattr(images, "columns"):
    raise TypeError(
      f"images is a {type(images).__name__}: give one column of it, such as "
      'images["path"].'
    )
  if hasattr(images, "__array__") or hasattr(images, "__array_interface__"):
    return _from_array(np.asarray(images))
  if isinstance(images, Sequence):
    return images
  if isinstance(images, Iterable):
    return list(images)
  raise TypeError(f"images is a {type(images).__name__}: {_ACCEPTED}.")


def _from_array(images: np.ndarray) -> list[Any] | np.ndarray:
  if images.dtype.kind not in _LIST_KINDS:
    _check_array(images)
    return images
  if images.ndim != 1:
    raise errors.InputError(
      f"images is an array of {images.dtype} with the shape "
      f"{list(images.shape)}: give paths as a list or as one column, such as "
      "images[:, 0]."
    )
  items = images.tolist()
  return [os.fsdecode(x) for x in items] if images.dtype.kind == "S" else items


def _check_array(images: np.ndarray) -> None:
  _check_dtype(images.dtype, "images")
  if len(images.shape) != 4:
    raise errors.InputError(
      f"images has the shape {list(images.shape)}: {_ACCEPTED}; one image is "
      "image[None]."
    )
  if len(images):
    preprocessing_lib.check_shape(tuple(images.shape[1:]), "each of images")


def _check_item(image: Any, name: str) -> None:
  if isinstance(image, (str, os.PathLike)):
    return
  if isinstance(image, np.ndarray):
    _check_dtype(image.dtype, name)
    shape = image.shape if image.ndim != 2 else (*image.shape, 1)
    preprocessing_lib.check_shape(shape, name)
    return
  if image is None or str(image) in ("nan", "<NA>"):
    raise TypeError(
      f"{name} is {image}, a missing value: leave out rows without a path."
    )
  if not _is_pillow(image):
    raise TypeError(f"{name} is a {type(image).__name__}: {_ACCEPTED}.")


def _is_pillow(image: Any) -> bool:
  # Without Pillow nobody has an image of it.
  return hasattr(image, "mode") and hasattr(image, "getexif")


def _check_dtype(dtype: Any, name: str) -> None:
  if np.dtype(dtype) != np.uint8:
    raise TypeError(
      f"{name} has the dtype {dtype}: give levels from 0 to 255 as uint8, not "
      "normalized; (255 * x).round().astype(np.uint8) of floats in [0, 1]."
    )
