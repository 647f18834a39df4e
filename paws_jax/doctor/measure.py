"""Sizes and values of single images: of files, and of images in memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from paws_jax.data.host import decode
from paws_jax.data.host import open_image
from paws_jax.data.host import pixel_values

# Takes an encoded image and its name, returns its height, width and range of
# values; raises BadImageError.
Decode = Callable[[bytes, str], tuple[int, int, pixel_values.ValueRange]]


def file_size_in_pixels(
  *, max_pixels: int, canvas_size: int, white_level: int = 0
) -> Decode:
  """Returns the `Decode` of image files, which decodes all of each file.

  Args:
    max_pixels: see `decode.image`.
    canvas_size: as in training; the sizes returned are those of the files.
    white_level: as in training; the values returned are those of the files.
  """

  def decode_size(
    content: bytes, name: str
  ) -> tuple[int, int, pixel_values.ValueRange]:
    with open_image.checked(
      content, name=name, max_pixels=max_pixels
    ) as opened:
      # Reduced decoding changes the size.
      width, height = opened.size
      largest = pixel_values.prepare(opened)
      decode.upright_rgb(
        opened,
        canvas_size,
        white_level=white_level,
        reopen=lambda: open_image.again(content),
      )
      values = pixel_values.value_range(opened, largest)
    return height, width, values

  return decode_size


def array_size(height: int, width: int) -> Decode:
  """Returns the `Decode` of images in memory, whose bytes are their pixels."""

  def decode_size(
    content: bytes, name: str
  ) -> tuple[int, int, pixel_values.ValueRange]:
    del name  # They can always be read.
    pixels = np.frombuffer(content, np.uint8)
    low, high = int(pixels.min()), int(pixels.max())
    return height, width, pixel_values.ValueRange(low, high, 255)

  return decode_size
