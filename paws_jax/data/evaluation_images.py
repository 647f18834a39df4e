"""Images as an evaluation sees them: resized, and cut out of the middle."""

from __future__ import annotations

import concurrent.futures
from typing import TYPE_CHECKING

import numpy as np

from paws_jax import sharding
from paws_jax.data import catalog
from paws_jax.data import decode
from paws_jax.data import image_reader

if TYPE_CHECKING:
  import PIL.Image


# Longest side that resizing may lead to: a line of one pixel by millions would
# take all memory.
_LONGEST_SIDE = 2**17


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
    num_threads: int | None = None,
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
      num_threads: that decode; default one for each core of this process.

    Raises:
      ValueError: `resize` smaller than `size`.
    """
    if not 0 < size <= resize:
      raise ValueError(
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
    self._bad: dict[int, decode.BadImageError] = {}
    self._resize, self._size = resize, size
    self._rows = np.arange(len(reader)) if rows is None else np.asarray(rows)
    self._num_threads = num_threads or sharding.num_cores()

  def __len__(self) -> int:
    return len(self._rows)

  @property
  def shape(self) -> tuple[int, int, int, int]:
    """[n, size, size, 3]."""
    return (len(self), self._size, self._size, 3)

  @property
  def unreadable(self) -> dict[str, str]:
    """Names of the bad images among those sliced so far, and the reasons."""
    return {error.name: error.reason for error in self._bad.values()}

  @property
  def readable(self) -> np.ndarray:
    """Bool [n]: False for the bad images among those sliced so far."""
    readable = np.ones(len(self), bool)
    readable[list(self._bad)] = False
    return readable

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
      except decode.BadImageError as error:
        if not self._leave_out_bad:
          raise decode.BadImageError(
            error.name, error.reason, can_skip=False
          ) from error
        self._bad[int(chosen[i])] = error

    # Pillow lets other threads run while it decodes and resizes.
    with concurrent.futures.ThreadPoolExecutor(self._num_threads) as pool:
      for _ in pool.map(read, range(len(chosen))):
        pass
    return cut

  def _read(self, row: int) -> np.ndarray:
    """Decodes and cuts an image to uint8 [size, size, 3]."""
    pixels = self._images.image(row)
    height, width = pixels.shape[:2]
    if self._resize * max(height, width) > _LONGEST_SIDE * min(height, width):
      raise decode.BadImageError(
        self._images.reader.name(row),
        f"its {height} x {width} pixels are too narrow to be resized to a "
        f"short side of {self._resize}",
      )
    return resize_and_crop(pixels, resize=self._resize, size=self._size)


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
