"""Images of an evaluation: resized, and cropped in the center."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax.data.host import image_reader
from paws_jax.data.sources import catalog
from paws_jax.parallel import cpu_devices

if TYPE_CHECKING:
  import PIL.Image


# Longest side after resizing: an image of one by a million pixels would need
# too much memory.
_LONGEST_SIDE = 2**17
_REMEDY = "Repair or remove it: an evaluation counts every image once"


class EvaluationImages:
  """Images with the interface of an array [n, size, size, 3], read on access.

  Each image is decoded at full size, not on a training canvas, and cropped as
  by torchvision's Resize and CenterCrop of Pillow images, bit for bit.

  An evaluation counts every example exactly once, so that a bad test image is
  an error whatever data.on_bad_image is. Labelled training images, which vote,
  may be left out: they are black, and False in `readable`.
  """

  dtype = np.dtype(np.uint8)
  ndim = 4

  def __init__(
    self,
    reader: catalog.Reader,
    *,
    resize: int,
    size: int,
    max_pixels: int,
    white_level: int = 0,
    rows: np.ndarray | None = None,
    leave_out_bad: bool = False,
  ):
    """Keeps the settings, without reading.

    Args:
      reader: encoded images.
      resize: short side in pixels before the crop.
      size: side of the square crop.
      max_pixels: a larger image is a bad one.
      white_level: value that becomes 255, as in `decode.image`.
      rows: int [n], rows of the reader; default all.
      leave_out_bad: whether a bad image is listed in `unreadable` instead of
        being an error.

    Raises:
      ValueError: `resize` smaller than `size`.
    """
    if not 0 < size <= resize:
      raise errors.InputError(
        f"views.eval_resize is {resize} but the crop has {size} pixels: set "
        f"views.eval_resize to at least {size}."
      )
    self._images = image_reader.ImageReader(
      reader,
      max_pixels=max_pixels,
      on_bad_image="error",
      white_level=white_level,
    )
    self._leave_out_bad = leave_out_bad
    # Errors by place.
    self._bad: dict[int, errors.BadImageError] = {}
    self._others: dict[int, tuple[str, str]] = {}
    self._resize, self._size = resize, size
    self._rows = np.arange(len(reader)) if rows is None else np.asarray(rows)

  def __len__(self) -> int:
    return len(self._rows)

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """[n, size, size, 3]."""
    return (len(self), self._size, self._size, 3)

  @property
  def unreadable(self) -> dict[str, str]:
    """Reasons of the bad images found so far, by name."""
    return dict(self._all_bad().values())

  @property
  def readable(self) -> np.ndarray:
    """Bool [n]: False for images that could not be read when last sliced."""
    readable = np.ones(len(self), bool)
    readable[list(self._all_bad())] = False
    return readable

  def share_unreadable(self, gather: Callable[[Any], list[Any]]) -> None:
    """Adds the bad images that other processes have found.

    Args:
      gather: gathers a value from all processes, as `agree.gather` does.
    """
    own = [[place, *reason] for place, reason in self._reasons(self._bad)]
    self._others = {
      place: (name, reason)
      for each in gather(own)
      for place, name, reason in each
    }

  def _all_bad(self) -> dict[int, tuple[str, str]]:
    """Returns (name, reason) of all bad images, by place."""
    return self._others | dict(self._reasons(self._bad))

  @staticmethod
  def _reasons(
    bad: Mapping[int, errors.BadImageError],
  ) -> Iterator[tuple[int, tuple[str, str]]]:
    for place, error in bad.items():
      yield place, (error.name, error.reason)

  def __getitem__(self, places: slice | np.ndarray) -> np.ndarray:
    """Decodes images.

    Args:
      places: a slice, or an array of places.

    Returns:
      uint8 [m, size, size, 3].

    Raises:
      BadImageError: an image cannot be read.
    """
    chosen = np.arange(len(self))[places]
    if chosen.ndim != 1:
      raise TypeError(f"images[{places!r}]: give a slice or an array of places")
    cut = np.zeros((len(chosen), *self.shape[1:]), np.uint8)

    def read(i: int) -> None:
      try:
        cut[i] = self._read(int(self._rows[chosen[i]]))
      except errors.BadImageError as error:
        if not self._leave_out_bad:
          raise errors.BadImageError(
            error.name, error.reason, remedy=_REMEDY
          ) from error
        self._bad[int(chosen[i])] = error
      else:
        # The disk may have failed only once.
        self._bad.pop(int(chosen[i]), None)

    # Pillow lets other threads run while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
      for _ in pool.map(read, range(len(chosen))):
        pass
    return cut

  def _read(self, row: int) -> np.ndarray:
    """Decodes and crops an image to uint8 [size, size, 3]."""
    pixels = self._images.image(row)
    reason = too_narrow(*pixels.shape[:2], resize=self._resize)
    if reason:
      raise errors.BadImageError(self._images.reader.name(row), reason)
    return resize_and_crop(pixels, resize=self._resize, size=self._size)


def too_narrow(height: int, width: int, *, resize: int) -> str:
  """Returns the reason why a readable image cannot be evaluated, or "".

  Args:
    height: height of the image in pixels.
    width: width of the image in pixels.
    resize: short side in pixels before the crop.
  """
  if resize * max(height, width) <= _LONGEST_SIDE * min(height, width):
    return ""
  return (
    f"its {height} x {width} pixels are too narrow to be resized to a short "
    f"side of {resize}"
  )


def resize_and_crop(
  pixels: np.ndarray, *, resize: int, size: int
) -> np.ndarray:
  """Resizes the short side and crops a square in the center.

  Args:
    pixels: uint8 [h, w, 3].
    resize: new length of the short side; the long side is rounded down.
    size: side of the square, at most `resize`.

  Returns:
    uint8 [size, size, 3].
  """
  from PIL import Image

  height, width = pixels.shape[:2]
  short, long = sorted((height, width))
  longer = int(resize * long / short)
  target = (longer, resize) if width >= height else (resize, longer)
  image: PIL.Image.Image = Image.fromarray(pixels)
  if image.size != target:
    image = image.resize(target, Image.Resampling.BILINEAR)
  # Python rounds halves to even, and so does torchvision.
  left, top = (round((side - size) / 2) for side in target)
  return np.asarray(image.crop((left, top, left + size, top + size)))
