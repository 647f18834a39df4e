"""Linear resampling of image batches by small dense matrices.

Resizing, blurring and rotating are weighted sums of pixels, with weights that
depend on random numbers of the image. As one matrix per image and axis they are
batched matrix products, which are fast on every accelerator; gathers are slow.

Images are [n, H, W, C] in [0, 255] with C in {1, 3}.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.augment import color

_HIGHEST = jax.lax.Precision.HIGHEST


def crop_and_resize(
  images: jax.Array,
  boxes: jax.Array,
  *,
  size: int,
  flip: jax.Array | None = None,
  precision: jax.lax.PrecisionLike = _HIGHEST,
) -> jax.Array:
  """Cuts a box out of each image and resizes it as Pillow's BILINEAR does.

  The filter is a triangle, widened by the factor of shrinking (antialiasing),
  cut at the borders of the box and renormalized: pixels outside the box are
  never read.

  Args:
    images: uint8 or float [n, S, S', C] in [0, 255].
    boxes: int32 [n, 4]: top, left, height, width, within the canvas.
    size: side of the result in pixels.
    flip: bool [n], mirrors left and right where True.
    precision: of the two matrix products.

  Returns:
    float32 [n, size, size, C] in [0, 255].

  Raises:
    ValueError: for arguments of another rank, size or dtype.
  """
  images = color.check_images(images)
  if boxes.shape != (images.shape[0], 4):
    raise ValueError(
      f"boxes must have shape [{images.shape[0]}, 4] for images of shape "
      f"{list(images.shape)}, but has {list(boxes.shape)}."
    )
  canvas = (images.shape[1], images.shape[2])
  rows, columns = crop_matrices(boxes, canvas, size=size, flip=flip)
  views = apply_matrices(
    images, rows[:, None], columns[:, None], precision=precision
  )
  return jnp.squeeze(views, axis=1)


def crop_matrices(
  boxes: jax.Array,
  canvas: tuple[int, int],
  *,
  size: int,
  flip: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes matrices that cut boxes and resize them to squares.

  Args:
    boxes: int32 [n, 4]: top, left, height, width, within the canvas.
    canvas: height S and width S' of the canvas.
    size: side of the result in pixels.
    flip: bool [n], mirrors left and right where True.

  Returns:
    float32 [n, size, S] and [n, size, S'].
  """
  top, left, height, width = jnp.unstack(boxes, axis=1)
  zero = jnp.zeros_like(top)
  rows = resize_matrix(
    top,
    height,
    scale=height / size,
    offset=zero,
    size=size,
    canvas=canvas[0],
  )
  columns = resize_matrix(
    left,
    width,
    scale=width / size,
    offset=zero,
    size=size,
    canvas=canvas[1],
    flip=flip,
  )
  return rows, columns


def resize_matrix(
  start: jax.Array,
  length: jax.Array,
  *,
  scale: jax.Array,
  offset: jax.Array,
  size: int,
  canvas: int,
  flip: jax.Array | None = None,
) -> jax.Array:
  """Weights of Pillow's BILINEAR along one axis.

  A triangle, widened by the factor of shrinking (antialiasing), cut at both
  ends of the segment and renormalized: nothing outside it is read.

  Args:
    start: int [n], first pixel of the segment on the canvas.
    length: int [n], pixels in the segment.
    scale: float [n], pixels of the segment per pixel of the resized one.
    offset: number [n], first pixel of the result on the resized segment.
    size: pixels of the result.
    canvas: pixels of the canvas.
    flip: bool [n], reverses the result where True.

  Returns:
    float32 [n, size, canvas]; rows sum to 1, or are 0 outside the segment.
  """
  place = jnp.arange(size, dtype=jnp.float32)[None, :]
  if flip is not None:
    place = jnp.where(flip[:, None], size - 1 - place, place)
  scale = scale.astype(jnp.float32)[:, None]
  center = (place + offset.astype(jnp.float32)[:, None] + 0.5) * scale
  # Middles of the pixels, counted from the start of the segment.
  pixel = jnp.arange(canvas, dtype=jnp.float32)[None, :] + 0.5
  pixel = pixel - start.astype(jnp.float32)[:, None]
  inside = (pixel > 0) & (pixel < length.astype(jnp.float32)[:, None])
  distance = jnp.abs(pixel[:, None, :] - center[:, :, None])
  weights = jnp.maximum(0, 1 - distance / jnp.maximum(scale, 1)[:, :, None])
  weights = jnp.where(inside[:, None, :], weights, 0)
  total = jnp.sum(weights, axis=2, keepdims=True)
  return weights / jnp.where(total > 0, total, 1)


def apply_matrices(
  images: jax.Array,
  rows: jax.Array,
  columns: jax.Array,
  *,
  precision: jax.lax.PrecisionLike = _HIGHEST,
) -> jax.Array:
  """Applies V pairs of matrices to each image, which is read once.

  Args:
    images: float32 [n, H, W, C].
    rows: float32 [n, V, h, H].
    columns: float32 [n, V, w, W].
    precision: of the two matrix products.

  Returns:
    float32 [n, V, h, w, C].
  """
  lines = jnp.einsum("nvih,nhwc->nviwc", rows, images, precision=precision)
  return jnp.einsum("nvjw,nviwc->nvijc", columns, lines, precision=precision)


def gaussian_blur(
  images: jax.Array,
  radii: jax.Array,
  *,
  precision: jax.lax.PrecisionLike = _HIGHEST,
) -> jax.Array:
  """Blurs as Pillow's GaussianBlur, by three box filters along each axis.

  Each box repeats the border pixels. A box filter is linear, so the three are
  one banded matrix per image and axis, and the blur two matrix products.

  Args:
    images: float [n, H, W, C] in [0, 255].
    radii: float [n], standard deviation in pixels; 0 is the identity.
    precision: of the matrix products.

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or radii of another rank, size or dtype.
  """
  images = color.check_images(images)
  radii = color.check_factors("radii", radii, images)
  matrices = []
  for side in images.shape[1:3]:
    box = _box_matrix(radii, side)
    twice = jnp.einsum("nij,njk->nik", box, box, precision=precision)
    thrice = jnp.einsum("nij,njk->nik", twice, box, precision=precision)
    matrices.append(thrice[:, None])
  return jnp.squeeze(
    apply_matrices(images, *matrices, precision=precision), axis=1
  )


def rotate(
  images: jax.Array,
  degrees: jax.Array,
  *,
  precision: jax.lax.PrecisionLike = _HIGHEST,
) -> jax.Array:
  """Rotates counter-clockwise about the center, with bilinear sampling.

  Pixels from outside the image have the value of the nearest border pixel.
  Costs H * W * H * W * C multiplications per image and a matrix of H * W by W:
  meant for sides of at most 64 pixels.

  Args:
    images: float [n, H, W, C] in [0, 255].
    degrees: float [n].
    precision: of the matrix product.

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or degrees of another rank, size or dtype.
  """
  images = color.check_images(images)
  degrees = color.check_factors("degrees", degrees, images)
  num_images, height, width, channels = images.shape
  angle = jnp.deg2rad(degrees)[:, None, None]
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  down = (jnp.arange(height, dtype=jnp.float32) - (height - 1) / 2)[
    None, :, None
  ]
  right = (jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2)[
    None, None, :
  ]
  # Source of each pixel, [n, H, W].
  source_x = right * cos - down * sin + (width - 1) / 2
  source_y = right * sin + down * cos + (height - 1) / 2

  def hat(source: jax.Array, side: int) -> jax.Array:
    source = jnp.clip(source, 0, side - 1).reshape(num_images, -1, 1)
    pixel = jnp.arange(side, dtype=jnp.float32)[None, None, :]
    return jnp.maximum(0, 1 - jnp.abs(source - pixel))

  # [n, H * W, H, C]: every row of the image sampled at each target's x ...
  lines = jnp.einsum(
    "npx,nyxc->npyc", hat(source_x, width), images, precision=precision
  )
  # ... of which each target takes the two next to its y.
  rotated = jnp.sum(hat(source_y, height)[..., None] * lines, axis=2)
  return rotated.reshape(num_images, height, width, channels)


def _box_matrix(radii: jax.Array, side: int) -> jax.Array:
  """Computes one pass of Pillow's approximate Gaussian: [n, side, side].

  A box of fractional half-width `reach` with the variance of a third of the
  Gaussian (Gwosdek et al., 2011), border pixels repeated.
  """
  variance = radii * radii / 3
  full = jnp.floor((jnp.sqrt(12 * variance + 1) - 1) / 2)
  part = (2 * full + 1) * (full * (full + 1) - 3 * variance)
  part = part / (6 * (variance - (full + 1) * (full + 1)))
  reach = (full + part)[:, None, None]
  place = jnp.arange(side, dtype=jnp.float32)
  target, source = place[None, :, None], place[None, None, :]
  weights = jnp.clip(reach + 1 - jnp.abs(target - source), 0, 1)
  # Weights beyond an end are added to the pixel at that end.
  before = jnp.maximum(reach - target, 0)
  after = jnp.maximum(reach - (side - 1 - target), 0)
  weights = weights + jnp.where(source == 0, before, 0)
  weights = weights + jnp.where(source == side - 1, after, 0)
  return weights / (2 * reach + 1)
