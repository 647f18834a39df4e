"""Operations of RandAugment that leave pixels in their places.

Images are float32 [n, H, W, C] in [0, 255] with C = 3 or 1. With `whole` the
levels are integers, and results are rounded as Pillow rounds them. Without it
nothing is rounded but what an operation cannot do without: the levels that are
counted, cut to bits or compared with a threshold.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax.augment import color
from paws_jax.augment import equalize as equalize_lib

BLENDS = ("brightness", "color", "contrast", "sharpness")
# Rounds at 0.51, so that differences in the last bit change no level.
_ALMOST_HALF = 0.49
# Pillow's conversion to gray, in 1/65536.
_GREY = (19595, 38470, 7471)


def nearest_levels(images: jax.Array) -> jax.Array:
  """Rounds to integer levels."""
  return jnp.floor(images + _ALMOST_HALF)


def base(name: str, images: jax.Array, *, whole: bool) -> jax.Array:
  """Computes what a blend moves away from, at factor 0.

  Args:
    name: of BLENDS.
    images: [n, H, W, C].
    whole: as above.
  """
  if name == "brightness":
    return jnp.zeros_like(images)
  if name == "sharpness":
    return _smooth(images, whole=whole)
  if name == "color" and not whole:
    return color.greyscale(images)
  grey = _grey_levels(images)
  if name == "contrast":
    pixels = grey.shape[1] * grey.shape[2]
    total = jnp.sum(grey, axis=(1, 2, 3), keepdims=True)
    rest = total % pixels
    grey = total // pixels + (2 * rest >= pixels)
  return jnp.broadcast_to(grey.astype(jnp.float32), images.shape)


def blend(
  bases: jax.Array, images: jax.Array, factors: jax.Array, *, whole: bool
) -> jax.Array:
  """Moves from bases (factor 0) to images (factor 1) and beyond, clipped."""
  factors = factors.astype(jnp.float32)[:, None, None, None]
  blended = jnp.clip(bases + factors * (images - bases), 0, 255)
  return jnp.floor(blended) if whole else blended


def autocontrast(images: jax.Array, *, whole: bool) -> jax.Array:
  """Stretches the levels of each channel to 0 ... 255."""
  levels = images if whole else nearest_levels(images)
  low = jnp.min(levels, axis=(1, 2), keepdims=True)
  high = jnp.max(levels, axis=(1, 2), keepdims=True)
  span = jnp.where(high > low, high - low, 1)
  if not whole:
    stretched = jnp.clip((images - low) * (255 / span), 0, 255)
  elif isinstance(levels, jax.core.Tracer):
    stretched = jnp.floor_divide((levels - low) * 255, span)
  else:
    # Pillow's numbers are of 64 bits: an exact level may be one below.
    first = np.asarray(low, np.float64)
    scale = 255.0 / np.asarray(span, np.float64)
    doubles = np.asarray(levels, np.float64) * scale - first * scale
    stretched = jnp.asarray(np.clip(np.trunc(doubles), 0, 255), jnp.float32)
  return jnp.where(high > low, stretched, images)


def equalize(images: jax.Array) -> jax.Array:
  """Spreads the levels of each channel evenly."""
  return equalize_lib.equalize(images)


def invert(images: jax.Array) -> jax.Array:
  """Subtracts from white."""
  return 255 - images


def posterize(images: jax.Array, bits: jax.Array) -> jax.Array:
  """Keeps the upper bits, 1 to 8, of integer levels."""
  step = jnp.exp2(8 - jnp.round(bits)).astype(jnp.float32)
  step = step[:, None, None, None]
  return jnp.floor(nearest_levels(images) / step) * step


def solarize(images: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Inverts the levels at or above a threshold."""
  levels = nearest_levels(images)
  below = levels < thresholds[:, None, None, None]
  return jnp.where(below, images, 255 - images)


def solarize_add(images: jax.Array, amounts: jax.Array) -> jax.Array:
  """Adds to the levels below 128, up to 255."""
  added = jnp.clip(images + amounts[:, None, None, None], 0, 255)
  return jnp.where(nearest_levels(images) < 128, added, images)


def cutout(images: jax.Array, boxes: jax.Array, *, fill: Any) -> jax.Array:
  """Paints over boxes.

  Args:
    images: [n, H, W, C].
    boxes: [n, 4]: left, top, right, bottom, all within the box.
    fill: gray level, or [C].
  """
  left, top, right, bottom = (
    boxes[:, i][:, None, None, None] for i in range(4)
  )
  row = jnp.arange(images.shape[1])[None, :, None, None]
  column = jnp.arange(images.shape[2])[None, None, :, None]
  inside = (row >= top) & (row <= bottom) & (column >= left)
  inside &= column <= right
  color_of_hole = jnp.asarray(fill, images.dtype)
  return jnp.where(
    inside, jnp.broadcast_to(color_of_hole, images.shape), images
  )


def _grey_levels(images: jax.Array) -> jax.Array:
  """Returns the gray level in whole numbers, int32 [n, H, W, 1]."""
  levels = nearest_levels(images).astype(jnp.int32)
  if images.shape[-1] == 1:
    return levels
  weights = jnp.asarray(_GREY, jnp.int32)[None, None, None, :]
  total = jnp.sum(levels * weights, axis=-1, keepdims=True)
  return (total + 2**15) >> 16


def _smooth(images: jax.Array, *, whole: bool) -> jax.Array:
  """Averages 3 x 3 pixels, the middle one five times; borders are copied."""
  height, width = images.shape[1:3]
  if height < 3 or width < 3:
    return images
  total = 4 * images[:, 1:-1, 1:-1]
  for row in range(3):
    for column in range(3):
      total += images[:, row : height - 2 + row, column : width - 2 + column]
  mean = jnp.floor((2 * total + 13) / 26) if whole else total / 13
  return images.at[:, 1:-1, 1:-1].set(mean)
