"""RandAugment: a few operations drawn for each image, as Pillow computes them.

`apply` gives Pillow's integer levels. Training draws operations by a policy and
leaves out the rounding. `config.rand_augment` has the policies.

Reference:
  Cubuk et al., RandAugment: Practical automated data augmentation with a
  reduced search space, 2019 (arXiv 1909.13719).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import errors
from paws_jax.augment import affine
from paws_jax.augment import color
from paws_jax.augment import levels
from paws_jax.config import rand_augment as policies

POLICIES = policies.POLICIES
_OF_LEVELS = (
  "autocontrast",
  "cutout",
  "equalize",
  "identity",
  "invert",
  "posterize",
  "solarize",
  "solarize_add",
)
OPERATIONS = tuple(sorted((*levels.BLENDS, *affine.OPERATIONS, *_OF_LEVELS)))
# Operations whose value nothing reads.
_WITHOUT_VALUE = ("autocontrast", "equalize", "identity", "invert")
# The most layers of a policy, and the numbers drawn for each: operation,
# chance, strength, sign, row and column of a hole.
_MOST_OPS, _OF_A_LAYER = 2, 6
# One more chance, and the last hole.
NUM_DRAWS = _MOST_OPS * _OF_A_LAYER + 3


def apply(
  name: str,
  images: jax.Array,
  value: Any = None,
  *,
  fill: Any = 0,
  resample: str = "nearest",
) -> jax.Array:
  """Applies one operation to all images, with Pillow's rounding.

  Args:
    name: of OPERATIONS.
    images: uint8 [n, H, W, 1 or 3].
    value: as Pillow gets it, one number or [n]: an enhancement factor, bits to
      keep, a threshold, an amount, degrees counter-clockwise, a shear factor,
      pixels; of cutout a box, [4] or [n, 4]: left, top, right, bottom, all
      within the box. Not read where an operation has none.
    fill: gray level, or one for each channel, outside of a moved image and in a
      box.
    resample: of moved images: "nearest", "bilinear" or "bicubic".

  Returns:
    uint8, of the same shape.

  Raises:
    errors.InputError: an unknown name, filter, or a value out of range.
    ValueError: arrays of another shape or dtype.

  Examples:
    >>> darker = apply("brightness", images, 0.5)
  """
  _check_choice("name", name, OPERATIONS)
  _check_choice("resample", resample, affine.FILTERS)
  if images.dtype != jnp.uint8:
    raise ValueError(f"images must be uint8, but is {images.dtype}.")
  pixels = color.check_images(images)
  values = _values(name, value, len(pixels))
  if name in affine.OPERATIONS:
    xp = np if isinstance(values, np.ndarray) else jnp
    maps = affine.coefficients(
      name, values, height=pixels.shape[1], width=pixels.shape[2], xp=xp
    )
    result = affine.sample(
      pixels, maps, fill=fill, resample=resample, whole=True
    )
  else:
    result = _in_place(
      name, pixels, jnp.asarray(values, jnp.float32), fill=fill, whole=True
    )
  return jnp.asarray(result, jnp.uint8)


def augment(
  draws: jax.Array, images: jax.Array, policy: policies.Policy
) -> jax.Array:
  """Draws and applies operations of a policy, without rounding.

  Every operation is computed for all images and selected, but for one gather
  for all that move pixels.

  Args:
    draws: float [n, NUM_DRAWS], uniform in [0, 1).
    images: float32 [n, H, W, C] in [0, 255].
    policy: of POLICIES.

  Returns:
    float32 [n, H, W, C].
  """
  images = color.check_images(images)
  last, low, high = draws[:, -3:], *policy.probability
  chances = low + (high - low) * last[:, 0]
  for i in range(policy.num_ops):
    layer = draws[:, i * _OF_A_LAYER : (i + 1) * _OF_A_LAYER]
    changed = _layer(layer, images, policy)
    images = color.select(layer[:, 1] < chances, changed, images)
  if policy.cutout:
    side = min(images.shape[1:3])
    boxes = _boxes(
      last[:, 1:], jnp.full(len(images), round(policy.cutout * side)), images
    )
    images = levels.cutout(images, boxes, fill=policy.cutout_fill)
  return images


def cutout(
  draws: jax.Array, images: jax.Array, side: int, *, fill: float = 127.5
) -> jax.Array:
  """Paints over a square around a random pixel, cut off at the borders.

  Args:
    draws: float [n, 2], uniform in [0, 1): row and column of the center.
    images: float32 [n, H, W, C].
    side: in pixels.
    fill: gray level.
  """
  boxes = _boxes(draws, jnp.full(len(images), side), images)
  return levels.cutout(images, boxes, fill=fill)


def _layer(
  draws: jax.Array, images: jax.Array, policy: policies.Policy
) -> jax.Array:
  """Applies an operation of each image's own; draws are [n, _OF_A_LAYER]."""
  names = tuple(policy.ops)
  drawn = jnp.floor(draws[:, 0] * len(names)).astype(jnp.int32)
  least, most = policy.levels
  strength = least + jnp.floor(draws[:, 2] * (most - least + 1))
  sign = jnp.where(draws[:, 3] < 0.5, -1.0, 1.0)
  side = min(images.shape[1:3])
  result, moved = images, jnp.zeros(len(images), bool)
  maps = jnp.zeros((len(images), 6))
  for place, name in enumerate(names):
    values = _strengths(policy.ops[name], strength, sign, side)
    mine = drawn == place
    if name in affine.OPERATIONS:
      own = affine.coefficients(
        name, values, height=images.shape[1], width=images.shape[2]
      )
      maps, moved = jnp.where(mine[:, None], own, maps), moved | mine
      continue
    if name == "cutout":
      values = _boxes(draws[:, 4:], jnp.round(values), images)
    changed = _in_place(
      name, images, values, fill=policy.cutout_fill, whole=False
    )
    result = color.select(mine, changed, result)
  sampled = affine.sample(
    images, maps, fill=policy.fill, resample=policy.resample
  )
  return color.select(moved, sampled, result)


def _strengths(
  op: policies.Range, strength: jax.Array, sign: jax.Array, side: int
) -> jax.Array:
  """Turns strengths [n] into the values of an operation."""
  distance = (op.high - op.low) * (side if op.of_side else 1)
  moved = distance * strength / policies.LEVELS
  if op.integer:
    moved = jnp.trunc(moved)
  values = op.low + moved
  return sign * values if op.signed else values


def _boxes(draws: jax.Array, sides: jax.Array, images: jax.Array) -> jax.Array:
  """Places squares around uniformly drawn pixels: [n, 4], cut off later."""
  top, left = (
    jnp.floor(draws[:, i] * size) - sides // 2
    for i, size in enumerate(images.shape[1:3])
  )
  return jnp.stack([left, top, left + sides - 1, top + sides - 1], axis=-1)


def _in_place(
  name: str, images: jax.Array, values: jax.Array, *, fill: Any, whole: bool
) -> jax.Array:
  """Applies an operation that leaves pixels in their places."""
  if name in levels.BLENDS:
    bases = levels.base(name, images, whole=whole)
    return levels.blend(bases, images, values, whole=whole)
  if name == "autocontrast":
    return levels.autocontrast(images, whole=whole)
  if name == "cutout":
    return levels.cutout(images, values, fill=fill)
  if name == "identity":
    return images
  without_value = {"equalize": levels.equalize, "invert": levels.invert}
  if name in without_value:
    return without_value[name](images)
  of_value = {
    "posterize": levels.posterize,
    "solarize": levels.solarize,
    "solarize_add": levels.solarize_add,
  }
  return of_value[name](images, values)


def _values(name: str, value: Any, count: int) -> Any:
  """Returns [n] or boxes [n, 4]: float64 of NumPy unless they are traced."""
  if name in _WITHOUT_VALUE:
    return np.zeros(count)
  if value is None:
    raise errors.InputError(f"operation {name!r} needs a value.")
  xp = jnp if isinstance(value, jax.core.Tracer) else np
  values = xp.asarray(value, float)
  shape = (count, 4) if name == "cutout" else (count,)
  if values.shape not in (shape, shape[1:]):
    raise ValueError(
      f"value must have shape {list(shape[1:])} or {list(shape)} for "
      f"operation {name!r} and {count} images, but has {list(values.shape)}."
    )
  if (
    name == "posterize"
    and xp is np
    and not np.all((values >= 1) & (values <= 8))
  ):
    raise errors.InputError(
      "posterize keeps between 1 and 8 bits; value has others."
    )
  return xp.broadcast_to(values, shape)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise errors.InputError(
      f"{name} is {value!r}; known are {', '.join(choices)}."
    )
