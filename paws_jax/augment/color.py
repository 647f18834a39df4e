"""Color operations on batches of images, each with a factor per image.

Images and results are float32 [n, H, W, C] in [0, 255] with C = 3 (RGB) or 1
(gray). The semantics are those of torchvision on Pillow images;
Pillow's rounding to integer levels after every operation is left out. On gray
images, saturation, hue and grayscale are identities.

Everything is batched arithmetic, without gathers or branches: an operation
that applies to some images of a batch is computed for all and selected.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Pillow's conversion to gray (ITU-R 601-2), in 1/65536.
_GREY_WEIGHTS = (19595 / 65536, 38470 / 65536, 7471 / 65536)
# Rounds at 0.51, as values exactly between two levels are frequent (a crop
# enlarged twice, a pure yellow) and may differ in the last bit.
_ALMOST_HALF = 0.49


def adjust_brightness(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends with black: `factor * image`, clipped.

  Args:
    images: float [n, H, W, C] in [0, 255].
    factors: float [n]; 1 is the identity, 0 makes the image black.

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or factors of another rank, size or dtype.
  """
  images = check_images(images)
  factors = check_factors("factors", factors, images)
  return _blend(jnp.zeros_like(images), images, factors)


def adjust_contrast(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends with the mean gray level of the image, one scalar for all channels.

  Args:
    images: float [n, H, W, C] in [0, 255].
    factors: float [n]; 1 is the identity, 0 makes the image uniform.

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or factors of another rank, size or dtype.
  """
  images = check_images(images)
  factors = check_factors("factors", factors, images)
  mean = _mean_level(_grey_level(images))
  return _blend(jnp.broadcast_to(mean, images.shape), images, factors)


def adjust_saturation(images: jax.Array, factors: jax.Array) -> jax.Array:
  """Blends with the gray image.

  Args:
    images: float [n, H, W, C] in [0, 255].
    factors: float [n]; 1 is the identity, 0 makes the image gray.

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or factors of another rank, size or dtype.
  """
  images = check_images(images)
  factors = check_factors("factors", factors, images)
  if images.shape[-1] == 1:
    return images
  return _blend(greyscale(images), images, factors)


def adjust_hue(images: jax.Array, turns: jax.Array) -> jax.Array:
  """Rotates the hue of HSV.

  As in torchvision, the turn is truncated to multiples of 1/255 of a circle.
  HSV is in floating point, where Pillow has eight bits; a turn of 0 changes
  colors by up to 3 levels (in Pillow, by up to 5).

  Args:
    images: float [n, H, W, C] in [0, 255].
    turns: float [n], in turns of the color circle.

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or turns of another rank, size or dtype.
  """
  images = check_images(images)
  turns = check_factors("turns", turns, images)
  if images.shape[-1] == 1:
    return images
  red, green, blue = jnp.unstack(images, axis=-1)
  value = jnp.maximum(jnp.maximum(red, green), blue)
  chroma = value - jnp.minimum(jnp.minimum(red, green), blue)
  scale = 1 / jnp.where(chroma > 0, chroma, 1)
  # The hue in sixths of a turn: 0 red, 2 green, 4 blue. The largest channel is
  # found by comparing channels, not as `value == red`: a compiler that computes
  # red twice may round it differently, so that no channel equals the value.
  sixths = jnp.where(
    (red >= green) & (red >= blue),
    (green - blue) * scale,
    jnp.where(
      green >= blue, 2 + (blue - red) * scale, 4 + (red - green) * scale
    ),
  )
  # Pillow truncates hue to eight bits, which subtracts half a step on average.
  # That half step is subtracted here, but hue is not truncated, which would
  # turn last-bit differences between two compilations into full gray levels. A
  # turn of hue is 255 steps, but 256 where the sum wraps.
  steps = 255 * jnp.mod(sixths / 6, 1) - _ALMOST_HALF
  steps = jnp.mod(steps + jnp.trunc(255 * turns)[:, None, None], 256)
  sixths = steps * (6 / 255)
  channels = []
  # A channel has its maximum within a sixth of a turn of its own hue, its
  # minimum beyond two sixths, and is linear between.
  for own in (0, 2, 4):
    distance = jnp.abs(jnp.mod(sixths - own + 3, 6) - 3)
    channels.append(value - chroma * jnp.clip(distance - 1, 0, 1))
  return jnp.stack(channels, axis=-1)


def greyscale(images: jax.Array) -> jax.Array:
  """Replaces all channels by the gray level.

  Args:
    images: float [n, H, W, C] in [0, 255].

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images of another rank, size or dtype.
  """
  images = check_images(images)
  return jnp.broadcast_to(_grey_level(images), images.shape)


def jitter(
  images: jax.Array,
  *,
  brightness: jax.Array,
  contrast: jax.Array,
  saturation: jax.Array,
  hue: jax.Array,
  ranks: jax.Array,
) -> jax.Array:
  """Applies the four adjustments to each image in its own order.

  Brightness, contrast and saturation are blends that differ in their base
  (black, mean gray, gray), so each of four passes costs one blend, one mean and
  one hue instead of four operations.

  Args:
    images: float [n, H, W, C] in [0, 255].
    brightness: float [n], factors of `adjust_brightness`.
    contrast: float [n], factors of `adjust_contrast`.
    saturation: float [n], factors of `adjust_saturation`.
    hue: float [n], turns of `adjust_hue`.
    ranks: int [n, 4], a permutation of 0..3 per image: the places of
      brightness, contrast, saturation and hue.

  Returns:
    float32 [n, H, W, C] in [0, 255], clipped after each operation.

  Raises:
    ValueError: for arguments of another rank, size or dtype.
  """
  images = check_images(images)
  if ranks.shape != (images.shape[0], 4):
    raise ValueError(
      f"ranks must have shape [{images.shape[0]}, 4] for images of shape "
      f"{list(images.shape)}, but has {list(ranks.shape)}."
    )
  brightness = check_factors("brightness", brightness, images)
  contrast = check_factors("contrast", contrast, images)
  saturation = check_factors("saturation", saturation, images)
  places = jnp.unstack(ranks, axis=1)
  for place in range(4):
    is_brightness, is_contrast, is_saturation, is_hue = (
      rank == place for rank in places
    )
    grey = _grey_level(images)
    base = select(is_contrast, _mean_level(grey), jnp.zeros_like(grey))
    base = select(is_saturation, grey, base)
    factors = jnp.where(is_contrast, contrast, saturation)
    factors = jnp.where(is_brightness, brightness, factors)
    blended = _blend(base, images, factors)
    if images.shape[-1] == 1:
      # Saturation and hue do not change a gray image.
      images = select(is_brightness | is_contrast, blended, images)
    else:
      images = select(is_hue, adjust_hue(images, hue), blended)
  return images


def solarize(images: jax.Array, thresholds: jax.Array) -> jax.Array:
  """Inverts the values at or above the image's threshold.

  Args:
    images: float [n, H, W, C] in [0, 255].
    thresholds: float [n] in [0, 256].

  Returns:
    float32 [n, H, W, C] in [0, 255].

  Raises:
    ValueError: for images or thresholds of another rank, size or dtype.
  """
  images = check_images(images)
  thresholds = check_factors("thresholds", thresholds, images)
  return jnp.where(
    images < thresholds[:, None, None, None], images, 255 - images
  )


def select(mask: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
  """Selects images from two batches by a bool mask [n]."""
  return jnp.where(mask[:, None, None, None], yes, no)


def check_images(images: jax.Array) -> jax.Array:
  """Refuses arrays other than uint8 or float [n, H, W, 1 or 3].

  Returns:
    The images as float32.
  """
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(
      "images must have shape [n, height, width, channels] with 1 or 3 "
      f"channels, but has {list(images.shape)}."
    )
  if images.dtype != jnp.uint8 and not jnp.issubdtype(
    images.dtype, jnp.floating
  ):
    raise ValueError(
      f"images must be uint8 or float in [0, 255], but is {images.dtype}."
    )
  return jnp.asarray(images, jnp.float32)


def check_factors(
  name: str, factors: jax.Array, images: jax.Array
) -> jax.Array:
  """Refuses arrays other than one number per image.

  Returns:
    The factors as float32 [n].
  """
  if factors.shape != images.shape[:1]:
    raise ValueError(
      f"{name} must have one value per image, shape [{images.shape[0]}], but "
      f"has {list(factors.shape)}."
    )
  return jnp.asarray(factors, jnp.float32)


def _grey_level(images: jax.Array) -> jax.Array:
  """Returns the gray level, [n, H, W, 1]."""
  if images.shape[-1] == 1:
    return images
  red, green, blue = jnp.unstack(images, axis=-1)
  weights = _GREY_WEIGHTS
  grey = red * weights[0] + green * weights[1] + blue * weights[2]
  return grey[..., None]


def _mean_level(grey: jax.Array) -> jax.Array:
  """Returns the mean of each image to the nearest level, [n, 1, 1, 1]."""
  mean = jnp.mean(grey, axis=(1, 2, 3), keepdims=True)
  return jnp.floor(mean + _ALMOST_HALF)


def _blend(base: jax.Array, images: jax.Array, factors: jax.Array) -> jax.Array:
  """Moves from `base` (factor 0) to `images` (factor 1) and beyond."""
  blended = base + factors[:, None, None, None] * (images - base)
  return jnp.clip(blended, 0, 255)
