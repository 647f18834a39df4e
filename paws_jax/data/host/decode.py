"""Decoding of images to RGB pixels on square canvases of one size.

`image` is the definition, by Pillow's decoder and the rules below. `plain_jpeg`
gives the same bits in a TensorFlow graph for ordinary JPEG files, and leaves
all others to `image`.

- The contents determine the format, not the name. JPEG, PNG, WebP, BMP, GIF and
  TIFF are read; Pillow's other decoders, some of which start programs, are not
  used.
- EXIF orientation is applied. An animation is represented by its first frame.
- Transparent pixels become white, the ground for which most drawings are made;
  on black their lines would vanish.
- The largest value that a file can hold becomes 255, or `data.white_level`; see
  `pixel_values`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from paws_jax import tf_runtime
from paws_jax.data.host import open_image
from paws_jax.data.host import pixel_values

if TYPE_CHECKING:
  import PIL.Image
  import tensorflow

_ORIENTATION = 0x0112
# Bytes that `plain_jpeg` searches for metadata; longer headers are for Pillow.
_HEADER_BYTES = 4096


def canvas(
  content: bytes,
  *,
  name: str,
  canvas_size: int,
  max_pixels: int,
  white_level: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
  """Decodes an image onto a square canvas.

  Args:
    content: the encoded image.
    name: name of the image, for messages.
    canvas_size: S; a larger image is reduced until its long side is S.
    max_pixels: a larger image is refused before it is decoded.
    white_level: as in `image`.

  Returns:
    uint8 [S, S, 3], the image in the upper left corner and zeros elsewhere;
    int32 [2], its height and width.

  Raises:
    BadImageError: the contents are not an image, or not a complete one.
  """
  pixels = image(
    content,
    name=name,
    max_pixels=max_pixels,
    fit=canvas_size,
    white_level=white_level,
  )
  return on_canvas(pixels, canvas_size)


def on_canvas(
  pixels: np.ndarray, canvas_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Puts [h, w, 3] on zeros [S, S, 3]; also gives int32 [2], its h and w."""
  height, width = pixels.shape[:2]
  square = np.zeros((canvas_size, canvas_size, 3), np.uint8)
  square[:height, :width] = pixels
  return square, np.array([height, width], np.int32)


def image(
  content: bytes,
  *,
  name: str,
  max_pixels: int,
  fit: int = 0,
  white_level: int = 0,
) -> np.ndarray:
  """Decodes an image with Pillow.

  Args:
    content: the encoded image.
    name: name of the image, for messages.
    max_pixels: a larger image is refused before it is decoded.
    fit: longest side of the result, 0: any. A larger image is reduced with
      antialiasing, after the decoder of JPEG has reduced it to twice `fit`.
    white_level: value that becomes 255, in files that can hold it; 0: the
      largest value that a file can hold.

  Returns:
    uint8 [h, w, 3], upright RGB.

  Raises:
    BadImageError: the contents are not an image, or not a complete one.
  """
  with open_image.checked(content, name=name, max_pixels=max_pixels) as opened:
    return np.asarray(
      upright_rgb(
        opened,
        fit,
        white_level=white_level,
        reopen=lambda: open_image.again(content),
      )
    )


def upright_rgb(
  opened: PIL.Image.Image,
  fit: int,
  *,
  white_level: int = 0,
  reopen: Callable[[], PIL.Image.Image] | None = None,
) -> PIL.Image.Image:
  """Converts the first frame to RGB, upright and without transparency.

  Args:
    opened: image of any mode.
    fit: pixels to which the longer side is reduced; 0: any size.
    white_level: as in `image`.
    reopen: opens the same image again; None: it cannot be.
  """
  from PIL import Image

  target = _fitted_size(opened.size, fit)
  whole: tuple[float, float, float, float] = (0, 0, *opened.size)
  if target != opened.size:
    # JPEG decodes to 1/2, 1/4 or 1/8 of the size in a fraction of the time.
    # The remaining reduction, by twice or more, hides the difference; the box
    # accounts for an odd side, whose last pixel is only part of one.
    drafted = opened.draft(None, (2 * target[0], 2 * target[1]))
    whole = drafted[1] if drafted else whole
  rgb = pixel_values.rgb(opened, white_level=white_level, reopen=reopen)
  orientation = 1
  # Metadata are no reason to refuse an image.
  with contextlib.suppress(Exception):
    orientation = opened.getexif().get(_ORIENTATION, 1)
  if target != rgb.size:
    rgb = rgb.resize(target, Image.Resampling.LANCZOS, box=whole)
  turn = Image.Transpose
  turns = {
    2: turn.FLIP_LEFT_RIGHT,
    3: turn.ROTATE_180,
    4: turn.FLIP_TOP_BOTTOM,
    5: turn.TRANSPOSE,
    6: turn.ROTATE_270,
    7: turn.TRANSVERSE,
    8: turn.ROTATE_90,
  }
  return rgb.transpose(turns[orientation]) if orientation in turns else rgb


def _fitted_size(size: tuple[int, int], fit: int) -> tuple[int, int]:
  """Returns width and height with a long side of at most `fit`; 0: any."""
  longest = max(size)
  if not fit or longest <= fit:
    return size
  width, height = (max(1, round(side * fit / longest)) for side in size)
  return width, height


def plain_jpeg(
  content: tensorflow.Tensor,
  *,
  canvas_size: int,
  max_pixels: int,
  white_level: int = 0,
) -> tensorflow.Tensor:
  """Decodes an ordinary JPEG in a TensorFlow graph.

  An ordinary JPEG has one or three components, fits on the canvas, and has no
  metadata that rotate it.

  Args:
    content: scalar string, the encoded image.
    canvas_size: S.
    max_pixels: as in `image`.
    white_level: as in `image`; one that files of 8 bits can hold leaves all
      files to `image`.

  Returns:
    uint8 [h, w, 3], equal to the result of `image`; [0, 0, 3] for other files,
    which are left to `image`.

  Raises:
    tf.errors.InvalidArgumentError: in the graph, for some incomplete files,
      also left to `image`.
  """
  tf = tf_runtime.load()

  if 0 < white_level < 255:
    return tf.zeros((0, 0, 3), tf.uint8)
  # Checked first, as TensorFlow prints a line for each other file.
  return tf.cond(
    tf.strings.substr(content, 0, 3) == b"\xff\xd8\xff",
    lambda: _jpeg_if_ordinary(content, canvas_size, max_pixels),
    lambda: tf.zeros((0, 0, 3), tf.uint8),
  )


def _jpeg_if_ordinary(
  content: tensorflow.Tensor, canvas_size: int, max_pixels: int
) -> tensorflow.Tensor:
  tf = tf_runtime.load()

  # [height, width, components], from the header alone.
  shape = tf.io.extract_jpeg_shape(content, output_type=tf.int64)
  fits = tf.reduce_max(shape[:2]) <= canvas_size
  fits &= shape[0] * shape[1] <= max_pixels
  # Four components are CMYK.
  ordinary = fits & (shape[2] <= 3) & _stands_upright(content)

  def decode() -> tensorflow.Tensor:
    # Both options are those of Pillow's decoder.
    return tf.io.decode_jpeg(
      content, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True
    )

  return tf.cond(ordinary, decode, lambda: tf.zeros((0, 0, 3), tf.uint8))


def _stands_upright(content: tensorflow.Tensor) -> tensorflow.Tensor:
  """Whether a JPEG has no metadata that rotate it; in a graph.

  It searches for byte patterns without parsing, so that crafted metadata can
  mislead it.
  """
  tf = tf_runtime.load()

  header = tf.strings.substr(content, 0, _HEADER_BYTES)

  def has(pattern: str) -> tensorflow.Tensor:
    # \C is any byte; what follows is below 128, since the rest is UTF-8.
    return tf.strings.regex_full_match(header, rf"\C*(?:{pattern})\C*")

  # The frame header's length and precision: metadata come before it.
  whole = has(r"\x00[\x0b\x11]\x08")
  entry = r"\x01\x12\x00\x03\x00\x00\x00\x01\x00[{0}]"
  entry += r"|\x12\x01\x03\x00\x01\x00\x00\x00[{0}]\x00"

  def entry_of_one_only() -> tensorflow.Tensor:
    others = r"\x00\x02-\x7f"
    return has(entry.format(r"\x01")) & ~has(entry.format(others))

  # EXIF's and XMP's segments.
  has_metadata = has(r"Exif\x00|ns\.adobe\.com/xap")
  return whole & tf.cond(
    has_metadata, entry_of_one_only, lambda: tf.constant(True)
  )
