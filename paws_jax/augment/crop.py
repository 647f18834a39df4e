"""Random crop boxes and the evaluation crop."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import errors
from paws_jax.augment import color
from paws_jax.augment import resample

HIGHEST = jax.lax.Precision.HIGHEST
CROP_TRIES = 10


def crop_boxes(
  draws: jax.Array,
  sizes: jax.Array,
  *,
  scale: tuple[float, float],
  aspect_ratio: tuple[float, float],
) -> jax.Array:
  """Draws boxes distributed as in torchvision's RandomResizedCrop.

  Some tries (torchvision: ten) of an area uniform in `scale` and a ratio
  log-uniform in `aspect_ratio`; the first that fits is placed uniformly. If
  none fits: the largest central box whose ratio is within bounds.

  Args:
    draws: float32 [n, 4, tries], uniform in [0, 1): area, ratio, vertical and
      horizontal offset of every try.
    sizes: int32 [n, 2], height and width of the images.
    scale: bounds of the box's share of the image's area.
    aspect_ratio: bounds of width over height.

  Returns:
    int32 [n, 4]: top, left, height, width.

  Raises:
    ValueError: for draws of another rank or size.
  """
  _check_draws(draws, sizes)
  tries = crop_tries(draws, scale=scale, aspect_ratio=aspect_ratio)
  return fit_boxes(tries, sizes, aspect_ratio=aspect_ratio)


def crop_tries(
  draws: jax.Array,
  *,
  scale: tuple[float, float],
  aspect_ratio: tuple[float, float],
) -> jax.Array:
  """Computes what a box tries, whatever the size of its image.

  Args:
    draws: as `crop_boxes`.
    scale: as `crop_boxes`.
    aspect_ratio: as `crop_boxes`.

  Returns:
    float32 [n, 4, tries]: share of the area, ratio, and the two offsets.
  """
  area, ratio, vertical, horizontal = jnp.unstack(draws, axis=1)
  area = scale[0] + (scale[1] - scale[0]) * area
  low, high = math.log(aspect_ratio[0]), math.log(aspect_ratio[1])
  ratio = jnp.exp(low + (high - low) * ratio)
  return jnp.stack([area, ratio, vertical, horizontal], axis=1)


def fit_boxes(
  tries: Any,
  sizes: Any,
  *,
  aspect_ratio: tuple[float, float],
  xp: Any = jnp,
) -> Any:
  """Chooses the first try that fits into an image.

  Args:
    tries: of `crop_tries`.
    sizes: int32 [n, 2], height and width of the images.
    aspect_ratio: bounds of width over height.
    xp: jax.numpy, or numpy: both give the same boxes.

  Returns:
    int32 [n, 4]: top, left, height, width.
  """
  area, ratio, vertical, horizontal = (tries[:, i] for i in range(4))
  height, width = xp.split(sizes.astype(np.float32), 2, axis=1)  # [n, 1]
  area = height * width * area
  widths = xp.round(xp.sqrt(area * ratio))
  heights = xp.round(xp.sqrt(area / ratio))
  fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
  # argmax finds the first True; its one-hot row picks without a gather.
  first = (
    xp.argmax(fits, axis=1, keepdims=True) == xp.arange(tries.shape[2])[None, :]
  )
  any_fits = xp.any(fits, axis=1, keepdims=True)

  def pick(candidates: Any) -> Any:
    return xp.sum(xp.where(first, candidates, 0), axis=1, keepdims=True)

  image_ratio = width / height
  narrow, wide = image_ratio < aspect_ratio[0], image_ratio > aspect_ratio[1]
  central_height = xp.where(narrow, xp.round(width / aspect_ratio[0]), height)
  central_width = xp.where(wide, xp.round(height * aspect_ratio[1]), width)
  box_height = xp.where(any_fits, pick(heights), central_height)
  box_width = xp.where(any_fits, pick(widths), central_width)

  def place(draw: Any, room: Any) -> Any:
    offset = xp.floor(pick(draw) * (room + 1))
    return xp.where(any_fits, xp.minimum(offset, room), xp.floor(room / 2))

  top = place(vertical, height - box_height)
  left = place(horizontal, width - box_width)
  boxes = xp.concatenate([top, left, box_height, box_width], axis=1)
  return boxes.astype(np.int32)


def evaluation_view(
  images: jax.Array,
  sizes: jax.Array,
  *,
  resize: int,
  size: int,
  precision: jax.lax.PrecisionLike = HIGHEST,
) -> jax.Array:
  """Resizes the short side, then cuts the central square, as torchvision.

  Only the rows and columns of the square are computed. Parts of the square
  outside the image (possible only with `resize=0` and an image smaller than
  `size`) are black.

  Args:
    images: uint8 or float [n, S, S', C] in [0, 255].
    sizes: int32 [n, 2], height and width of each image on its canvas.
    resize: short side after resizing, at least `size`; 0: no resizing.
    size: side of the square in pixels.
    precision: of the two matrix products.

  Returns:
    float32 [n, size, size, C] in [0, 255], not normalized.

  Raises:
    ValueError: for arguments of another rank, size or dtype, or if the images
      are known to be too small.
  """
  images = color.check_images(images)
  check_sizes(sizes, images)
  _check_crop(images, resize=resize, size=size)
  resized = sizes
  if resize:
    # The short side becomes `resize`; integer division truncates the long one.
    short = jnp.min(sizes, axis=1, keepdims=True)
    resized = resize * sizes // short
  room = resized - size
  offset = jnp.where(
    room >= 0, jnp.round(room / 2).astype(room.dtype), -(-room // 2)
  )
  matrices = [
    resample.resize_matrix(
      jnp.zeros_like(sizes[:, axis]),
      sizes[:, axis],
      scale=sizes[:, axis] / resized[:, axis],
      offset=offset[:, axis],
      size=size,
      canvas=images.shape[1 + axis],
    )[:, None]
    for axis in (0, 1)
  ]
  return jnp.squeeze(
    resample.apply_matrices(images, *matrices, precision=precision), axis=1
  )


def _check_draws(draws: jax.Array, sizes: jax.Array) -> None:
  """Refuses random numbers of another shape than `crop_boxes` needs."""
  if draws.ndim != 3 or draws.shape[:2] != (sizes.shape[0], 4):
    raise errors.InputError(
      f"draws must have shape [{sizes.shape[0]}, 4, tries], four numbers for "
      f"each try, but has {list(draws.shape)}."
    )


def _check_crop(images: jax.Array, *, resize: int, size: int) -> None:
  """Refuses an evaluation crop that is larger than the resized image."""
  if resize and resize < size:
    raise errors.InputError(
      f"resize must be 0 or at least the crop's side {size}, but is {resize}."
    )
  if not resize and min(images.shape[1:3]) < size:
    raise errors.InputError(
      f"images of {images.shape[1]} x {images.shape[2]} pixels are smaller "
      f"than the crop's side {size}; set resize to {size} or more."
    )


def check_sizes(sizes: jax.Array, images: jax.Array) -> None:
  """Refuses sizes other than an integer height and width per image."""
  if sizes.shape != (images.shape[0], 2) or not jnp.issubdtype(
    sizes.dtype, jnp.integer
  ):
    raise errors.InputError(
      f"sizes must be integers of shape [{images.shape[0]}, 2] for images of "
      f"shape {list(images.shape)}, but is {sizes.dtype} {list(sizes.shape)}."
    )
