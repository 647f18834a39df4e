"""Images as an evaluation sees them: resized, and cut out of the middle."""

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


# Longest side that resizing may lead to: a line of one pixel by millions would
# take all memory.
_LONGEST_SIDE = 2**17
_REMEDY = "Repair or remove it: an evaluation counts every image once"


class EvaluationImages:
  """Looks like a uint8 array [n, size, size, 3], but decodes when sliced.

  Each image is decoded whole, not from a training canvas, and cut as
  torchvision's Resize and CenterCrop do on Pillow's images, bit for bit.

  An evaluation counts every example exactly once, so a bad test image is an
  error whatever data.on_bad_image says. Labelled training images, which vote
  for the others, may be left out: they come out black, and `readable` tells.
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
    rows: np.ndarray | None = None,
    leave_out_bad: bool = False,
  ):
    """Keeps the settings; nothing is read yet.

    Args:
      reader: encoded images.
      resize: pixels of the short side before cutting.
      size: side of the square that is cut.
      max_pixels: an image of more is a bad one.
      rows: int [n], the images to take of the reader; default all.
      leave_out_bad: whether a bad one is listed in `unreadable` instead of
        being an error.

    Raises:
      ValueError: `resize` smaller than `size`.
    """
    if not 0 < size <= resize:
      raise errors.InputError(
        f"views.eval_resize is {resize} but {size} pixels are cut out of it: "
        "set views.eval_resize to at least views.large_size."
      )
    self._images = image_reader.ImageReader(
      reader,
      max_pixels=max_pixels,
      on_bad_image="error",
    )
    self._leave_out_bad = leave_out_bad
    # Why each cannot be read, by place.
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
    """Names of the bad images among those sliced so far, and the reasons."""
    return dict(self._all_bad().values())

  @property
  def readable(self) -> np.ndarray:
    """Bool [n]: False for images that were bad when last sliced."""
    readable = np.ones(len(self), bool)
    readable[list(self._all_bad())] = False
    return readable

  def share_unreadable(self, gather: Callable[[Any], list[Any]]) -> None:
    """Learns of the bad images that other processes have met.

    Args:
      gather: gives what every process gives, as `agreement.gather` does.
    """
    own = [[place, *told] for place, told in self._told(self._bad)]
    self._others = {
      place: (name, reason)
      for each in gather(own)
      for place, name, reason in each
    }

  def _all_bad(self) -> dict[int, tuple[str, str]]:
    """(name, reason) of the bad images that are known, by place."""
    return self._others | dict(self._told(self._bad))

  @staticmethod
  def _told(
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
      BadImageError: naming an image that cannot be read.
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
        # A disk that failed once need not fail again.
        self._bad.pop(int(chosen[i]), None)

    # Pillow lets other threads run while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
      for _ in pool.map(read, range(len(chosen))):
        pass
    return cut

  def _read(self, row: int) -> np.ndarray:
    """Decodes and cuts an image to uint8 [size, size, 3]."""
    pixels = self._images.image(row)
    reason = too_narrow(*pixels.shape[:2], resize=self._resize)
    if reason:
      raise errors.BadImageError(self._images.reader.name(row), reason)
    return resize_and_crop(pixels, resize=self._resize, size=self._size)


def too_narrow(height: int, width: int, *, resize: int) -> str:
  """Why an image cannot be evaluated though it can be read; "": it can.

  Args:
    height: of the whole image, in pixels.
    width: likewise.
    resize: pixels of the short side before cutting.
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
  """Resizes the short side and cuts a square out of the middle.

  Args:
    pixels: uint8 [h, w, 3].
    resize: new length of the short side; that of the long one is rounded down.
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
