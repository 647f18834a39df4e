"""Opens encoded images with Pillow, and says what is wrong with them."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from paws_jax import errors
from paws_jax.data.host import pixel_values
from paws_jax.data.host import unread_formats

if TYPE_CHECKING:
  import PIL.Image
  import PIL.ImageFile

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# Held while Pillow's own limit of pixels is changed, which all threads share.
_LIMIT_LOCK = threading.Lock()


@contextlib.contextmanager
def checked(
  content: bytes, *, name: str, max_pixels: int
) -> Iterator[PIL.ImageFile.ImageFile]:
  """Opens an image with Pillow.

  Args:
    content: the encoded image.
    name: name of the image, for messages.
    max_pixels: a larger image is refused before it is decoded.

  Yields:
    The image, of which the header has been read.

  Raises:
    BadImageError: it is not an image, or the context raises any Exception.
  """
  from PIL import UnidentifiedImageError

  size = (0, 0)
  # Damaged files make Pillow raise nearly anything: OSError, SyntaxError,
  # struct.error, KeyError, zlib.error, MemoryError ...
  try:
    opened = _of_any_size(content)
    size = width, height = opened.size
    if width * height > max_pixels:
      raise errors.BadImageError(
        name,
        f"its header announces {height} x {width} pixels, more than "
        f"data.max_pixels = {max_pixels} (raise that to read it)",
      )
    yield _allocated(opened)
  except errors.BadImageError:
    raise
  except UnidentifiedImageError as error:
    described = unread_formats.describe(content)
    raise errors.BadImageError(name, described) from error
  except Exception as error:
    raise errors.BadImageError(name, reason(error, size)) from error


def reason(error: Exception, size: tuple[int, int]) -> str:
  """Returns why an image cannot be decoded.

  Args:
    error: what Pillow, or a function here, has raised.
    size: width and height of the image.
  """
  width, height = size
  if isinstance(error, MemoryError):
    return (
      f"the memory does not suffice to decode its {height} x {width} pixels, "
      "or a line of them is too long for Pillow (reduce it)"
    )
  if isinstance(error, pixel_values.UnreadValuesError):
    return str(error)
  return f"damaged or incomplete ({str(error) or type(error).__name__})"


def again(content: bytes) -> PIL.Image.Image:
  """Opens an image that `checked` has accepted once more."""
  return _allocated(_of_any_size(content))


def _of_any_size(content: bytes) -> PIL.ImageFile.ImageFile:
  """Opens an image without Pillow's own limit of pixels."""
  from PIL import Image

  try:
    return Image.open(io.BytesIO(content), formats=FORMATS)
  except (Image.DecompressionBombError, Image.DecompressionBombWarning):
    # The latter where warnings are errors.
    with _without_limit():
      return Image.open(io.BytesIO(content), formats=FORMATS)


def _allocated(opened: PIL.ImageFile.ImageFile) -> PIL.ImageFile.ImageFile:
  """Allocates the pixels of a TIFF, where Pillow checks its limit again."""
  from PIL import Image

  limit = Image.MAX_IMAGE_PIXELS
  width, height = opened.size
  if opened.format == "TIFF" and limit and width * height > limit:
    with _without_limit():
      opened.load_prepare()
  return opened


@contextlib.contextmanager
def _without_limit() -> Iterator[None]:
  from PIL import Image

  with _LIMIT_LOCK:
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
      yield
    finally:
      Image.MAX_IMAGE_PIXELS = before
