"""Single images of a reader: decoding, substitutes and a cache."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from collections.abc import Iterator

import numpy as np

from paws_jax import errors
from paws_jax.data.host import decode
from paws_jax.data.sources import catalog

# Marks a missing image.
NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


class ImageReader:
  """Decoder of images with Pillow, with substitutes for bad ones.

  Attributes:
    replaced: name of the substitute by name of the bad image.
    max_pixels: larger images are bad ones.
    white_level: value that becomes 255, as in `decode.image`.
  """

  def __init__(
    self,
    reader: catalog.Reader,
    *,
    max_pixels: int,
    on_bad_image: str,
    fit: int = 0,
    white_level: int = 0,
  ):
    """Keeps the settings.

    Args:
      reader: encoded images.
      max_pixels: larger images are bad ones.
      on_bad_image: "error" or "skip".
      fit: longest side of a decoded image, 0: any.
      white_level: value that becomes 255, as in `decode.image`.

    Raises:
      ValueError: `on_bad_image` has another value.
    """
    if on_bad_image not in ("error", "skip"):
      raise errors.InputError(
        f"data.on_bad_image is {on_bad_image!r}: it must be 'error' or 'skip'."
      )
    self.reader = reader
    self.replaced: dict[str, str] = {}
    self.max_pixels = max_pixels
    self._skip = on_bad_image == "skip"
    self._fit = fit
    self.white_level = white_level

  def image(self, row: int, content: bytes = b"") -> np.ndarray:
    """Decodes a row to uint8 [h, w, 3]; raises BadImageError.

    Args:
      row: row of the reader.
      content: the encoded image, if it is already read.
    """
    return decode.image(
      content or self.content(row),
      name=self.reader.name(row),
      max_pixels=self.max_pixels,
      fit=self._fit,
      white_level=self.white_level,
    )

  def content(self, row: int) -> bytes:
    """Reads the encoded image of a row; raises BadImageError."""
    try:
      return self.reader.read(row)
    except OSError as error:
      reason = f"it cannot be read ({error})"
      raise errors.BadImageError(self.reader.name(row), reason) from error

  def image_or_substitute(
    self, row: int, candidates: Iterable[int]
  ) -> np.ndarray:
    """Decodes a row, or the first readable one of its candidates.

    Args:
      row: row of the reader.
      candidates: substitute rows, in the order in which they are tried.

    Returns:
      uint8 [h, w, 3].

    Raises:
      BadImageError: no row can be read, or on_bad_image is "error".
    """
    try:
      return self.image(row)
    except errors.BadImageError as error:
      if not self._skip:
        raise
      first = error
    for candidate in candidates:
      try:
        pixels = self.image(candidate)
      except errors.BadImageError:
        continue
      self.replaced[self.reader.name(row)] = self.reader.name(candidate)
      return pixels
    raise errors.BadImageError(
      first.name,
      first.reason,
      remedy="No possible substitute (a labelled image of its class, or for an "
      "unlabelled one another) can be read either: repair one, or remove it",
    ) from first


class Cache:
  """A cache of the first decoded images within a budget of bytes."""

  def __init__(self, budget: int):
    self._budget = budget
    self._images: dict[int, np.ndarray] = {}
    self._lock = threading.Lock()
    self.num_bytes = 0

  def get(self, row: int) -> np.ndarray:
    """Returns an image, uint8 [h, w, 3], or [0, 0, 3] if it is not cached."""
    return self._images.get(int(row), NO_IMAGE)

  def put(self, row: int, image: np.ndarray) -> np.ndarray:
    """Keeps a copy if the budget allows it; returns the image."""
    with self._lock:
      fits = self.num_bytes + image.nbytes <= self._budget
      if image.size and fits and int(row) not in self._images:
        self._images[int(row)] = np.array(image)
        self.num_bytes += image.nbytes
    return image


def rows_after(row: int, others: np.ndarray) -> Iterator[int]:
  """Yields the sorted rows `others` cyclically after `row`, without it."""
  # With equal dtypes NumPy does not convert the array.
  at = np.asarray(row, others.dtype)
  start = int(np.searchsorted(others, at, side="right"))
  for k in range(len(others)):
    # A generator: a pool may hold millions, of which the first often suffices.
    other = int(others[(start + k) % len(others)])
    if other != row:
      yield other
