"""Random views and evaluation crops of image batches, on device.

Images arrive as uint8 canvases [n, S, S', C] of which the top left `sizes[i]`
pixels are the image; inside they are float32 in [0, 255]. Crops are cut and
resized by two small matrices per crop and two batched matrix products, as are
blur and rotation: without gathers or scatters, and with static shapes.

Every random number is a function of one key, so a view depends on its key and
its image alone, not on the batch or the number of devices.

Distributions and resampling are those of torchvision's transforms on Pillow
images; tests/augment/ states the tolerance of each operation.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from paws_jax import config
from paws_jax.augment import affine
from paws_jax.augment import color
from paws_jax.augment import crop
from paws_jax.augment import equalize
from paws_jax.augment import rand_augment
from paws_jax.augment import resample

# Uniform numbers that a view draws, by operation. All are drawn in one call, as
# each call of threefry compiles to another loop. New operations come last, so
# that the numbers of the others stay the same.
_DRAWS = {
  # Every try has an area, a ratio and two offsets.
  "crop": 4 * crop.CROP_TRIES,
  "flip": 1,
  "rotate": 1,
  "jitter": 9,
  "grey": 1,
  "blur": 2,
  "solarize": 2,
  "equalize": 1,
  "shift": 2,
  "rand_augment": rand_augment.NUM_DRAWS,
  "cutout": 2,
}


def multi_views(
  keys: jax.Array,
  images: jax.Array,
  sizes: jax.Array,
  *,
  spec: config.ViewSpec,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  precision: jax.lax.PrecisionLike = crop.HIGHEST,
) -> jax.Array:
  """Draws V random views of each image from one copy of its canvas.

  In this order: random resized crop, flip, shift, rotation, color jitter,
  grayscale, blur, solarize, equalize, RandAugment, Cutout, normalization. An
  operation whose probability (or strength) is zero in the spec is not part of
  the program.

  Args:
    keys: typed PRNG keys [n, V], one per view.
    images: uint8 or float [n, S, S', C] in [0, 255].
    sizes: int32 [n, 2], height and width of each image on its canvas.
    spec: size, scale and augmentation of the views; its count is not read.
    mean: per channel, in units of the full range.
    std: per channel, in units of the full range.
    precision: of the matrix products. The default keeps float32; in a crop
      TF32 costs at most 0.2 of a gray level, bfloat16 1.4.

  Returns:
    float32 [n, V, size, size, C], normalized.

  Raises:
    ValueError: for arguments of another rank, size or dtype.
  """
  images = color.check_images(images)
  crop.check_sizes(sizes, images)
  _check_keys(keys, images.shape[0])
  draws = _draw(keys.reshape(-1))
  boxes = crop.crop_boxes(
    draws["crop"].reshape(-1, 4, crop.CROP_TRIES),
    jnp.broadcast_to(sizes[:, None, :], (*keys.shape, 2)).reshape(-1, 2),
    scale=spec.scale,
    aspect_ratio=spec.aspect_ratio,
  )
  flip = None
  if spec.flip_probability > 0:
    flip = draws["flip"][:, 0] < spec.flip_probability
  canvas = (images.shape[1], images.shape[2])
  rows, columns = resample.crop_matrices(
    boxes, canvas, size=spec.size, flip=flip
  )
  views = resample.apply_matrices(
    images,
    rows.reshape(*keys.shape, *rows.shape[1:]),
    columns.reshape(*keys.shape, *columns.shape[1:]),
    precision=precision,
  )
  views = views.reshape(-1, *views.shape[2:])
  views = _distort(draws, views, spec=spec, precision=precision)
  views = normalize(views, mean, std)
  return views.reshape(*keys.shape, *views.shape[1:])


def crop_tries(
  keys: jax.Array, spec: config.ViewSpec
) -> tuple[jax.Array, jax.Array]:
  """Draws the boxes and flips of `multi_views`, to cut the views elsewhere.

  Args:
    keys: typed PRNG keys [n, V], one per view.
    spec: as `multi_views`.

  Returns:
    float32 [n, V, 4, tries], of which `crop.fit_boxes` makes boxes, and
    bool [n, V]: whether the resized view is mirrored.
  """
  draws = _draw(keys.reshape(-1))
  tries = crop.crop_tries(
    draws["crop"].reshape(-1, 4, crop.CROP_TRIES),
    scale=spec.scale,
    aspect_ratio=spec.aspect_ratio,
  )
  flip = draws["flip"][:, 0] < spec.flip_probability
  return tries.reshape(*keys.shape, *tries.shape[1:]), flip.reshape(keys.shape)


def distort_views(
  keys: jax.Array,
  views: jax.Array,
  *,
  spec: config.ViewSpec,
  mean: tuple[float, ...],
  std: tuple[float, ...],
  precision: jax.lax.PrecisionLike = crop.HIGHEST,
) -> jax.Array:
  """Does to views that are cut all that `multi_views` does after that.

  Args:
    keys: typed PRNG keys [n, V], with which they were cut.
    views: uint8 [n, V, size, size, C].
    spec: as `multi_views`.
    mean: as `multi_views`.
    std: as `multi_views`.
    precision: as `multi_views`.

  Returns:
    float32 [n, V, size, size, C], normalized.
  """
  _check_keys(keys, views.shape[0])
  flat = color.check_images(views.reshape(-1, *views.shape[2:]))
  draws = _draw(keys.reshape(-1))
  distorted = _distort(draws, flat, spec=spec, precision=precision)
  return normalize(distorted, mean, std).reshape(views.shape)


def normalize(
  images: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]
) -> jax.Array:
  """Maps levels in [0, 255] to `(level / 255 - mean) / std` per channel.

  Args:
    images: uint8 or float [n, H, W, C] in [0, 255].
    mean: C numbers, in units of the full range.
    std: C numbers, in units of the full range.

  Returns:
    float32 [n, H, W, C].

  Raises:
    ValueError: if mean or std has not one value per channel.
  """
  images = color.check_images(images)
  channels = images.shape[-1]
  for name, values in (("mean", mean), ("std", std)):
    if len(values) != channels:
      raise ValueError(
        f"{name} must have one value per channel, {channels} for images of "
        f"shape {list(images.shape)}, but has {len(values)}."
      )
  shape = (1, 1, 1, channels)
  scale = jnp.asarray([1 / (255 * s) for s in std], jnp.float32)
  shift = jnp.asarray(
    [-m / s for m, s in zip(mean, std, strict=True)], jnp.float32
  )
  return images * scale.reshape(shape) + shift.reshape(shape)


def _distort(
  draws: Mapping[str, jax.Array],
  views: jax.Array,
  *,
  spec: config.ViewSpec,
  precision: jax.lax.PrecisionLike,
) -> jax.Array:
  """Applies the operations after crop and flip to [m, size, size, C]."""
  if spec.shift_pixels:
    steps = jnp.floor((2 * spec.shift_pixels + 1) * draws["shift"])
    down, right = jnp.unstack(
      steps.astype(jnp.int32) - spec.shift_pixels, axis=1
    )
    views = affine.shift(views, down, right)
  if spec.rotation_degrees > 0:
    degrees = spec.rotation_degrees * (2 * draws["rotate"][:, 0] - 1)
    views = resample.rotate(views, degrees, precision=precision)
  if spec.jitter_strength > 0 and spec.jitter_probability > 0:
    chance, *levels = jnp.unstack(draws["jitter"], axis=1)
    views = color.select(
      chance < spec.jitter_probability,
      color.jitter(
        views,
        **jitter_factors(
          levels, spec.jitter_strength, saturation=spec.jitter_saturation
        ),
      ),
      views,
    )
  if spec.grey_probability > 0:
    grey = draws["grey"][:, 0] < spec.grey_probability
    views = color.select(grey, color.greyscale(views), views)
  if spec.blur_probability > 0:
    chance, radii = jnp.unstack(draws["blur"], axis=1)
    low, high = spec.blur_radius
    # A radius of 0 is the identity, so no selection is needed.
    radii = jnp.where(
      chance < spec.blur_probability, low + (high - low) * radii, 0
    )
    views = resample.gaussian_blur(views, radii, precision=precision)
  if spec.solarize_probability > 0:
    chance, thresholds = jnp.unstack(draws["solarize"], axis=1)
    low, high = spec.solarize_threshold
    # 256 is above every value, so no value is inverted.
    thresholds = jnp.where(
      chance < spec.solarize_probability, low + (high - low) * thresholds, 256
    )
    views = color.solarize(views, thresholds)
  if spec.equalize_probability > 0:
    equalized = draws["equalize"][:, 0] < spec.equalize_probability
    views = color.select(equalized, equalize.equalize(views), views)
  if spec.rand_augment:
    policy = rand_augment.POLICIES[spec.rand_augment]
    views = rand_augment.augment(draws["rand_augment"], views, policy)
  if spec.cutout_size:
    views = rand_augment.cutout(draws["cutout"], views, spec.cutout_size)
  return views


def jitter_factors(
  draws: Sequence[jax.Array], strength: float, *, saturation: float = 0.8
) -> dict[str, jax.Array]:
  """Turns eight uniform draws into the arguments of `color.jitter`.

  Args:
    draws: eight float [n] in [0, 1): brightness, contrast, saturation, hue, and
      four whose order is the order of the operations.
    strength: s; factors are uniform in [max(0, 1 - 0.8 s), 1 + 0.8 s], hue in
      0.2 s turns either way.
    saturation: instead of 0.8 for the factor of saturation.

  Returns:
    brightness, contrast, saturation, hue [n] and ranks [n, 4].
  """
  factors = []
  for draw, share in zip(draws, (0.8, 0.8, saturation), strict=False):
    low, high = max(0.0, 1 - share * strength), 1 + share * strength
    factors.append(low + (high - low) * draw)
  # The ranks of the last four draws are a uniform permutation.
  order = jnp.stack(draws[4:], axis=1)
  mine, other = order[:, :, None], order[:, None, :]
  place = jnp.arange(4)
  earlier = place[None, None, :] < place[None, :, None]
  ranks = jnp.sum((other < mine) | ((other == mine) & earlier), axis=2)
  return {
    **dict(zip(("brightness", "contrast", "saturation"), factors, strict=True)),
    "hue": 0.2 * strength * (2 * draws[3] - 1),
    "ranks": ranks,
  }


def _draw(keys: jax.Array) -> dict[str, jax.Array]:
  """Draws the uniform numbers of every operation: {name: [n, count]}."""
  total = sum(_DRAWS.values())
  numbers = jax.vmap(lambda key: jax.random.uniform(key, (total,)))(keys)
  ends = list(itertools.accumulate(_DRAWS.values()))
  return dict(zip(_DRAWS, jnp.split(numbers, ends[:-1], axis=1), strict=True))


def _check_keys(keys: jax.Array, num_images: int) -> None:
  """Refuses arrays other than typed keys, one per image and view."""
  if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
    raise ValueError(
      f"keys must be typed (jax.random.key), but has dtype {keys.dtype}."
    )
  if keys.ndim != 2 or keys.shape[0] != num_images:
    raise ValueError(
      f"keys must have shape [{num_images}, views], but has {list(keys.shape)}."
    )
