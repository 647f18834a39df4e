"""Affine maps of image batches, as Pillow's Image.transform computes them.

A map is six numbers (a, b, c, d, e, f): the pixel at column i and row j of the
result has the value of the input at x = a (i + ½) + b (j + ½) + c,
y = d (i + ½) + e (j + ½) + f. Where that point lies outside of the image, the
result is the fill; elsewhere the fill does not enter.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

OPERATIONS = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
FILTERS = ("nearest", "bilinear", "bicubic")
# Pillow samples the nearest pixel in numbers of 16.16 bits.
_ONE = 65536


def coefficients(
  name: str, values: Any, *, height: int, width: int, xp: Any = jnp
) -> Any:
  """Computes the maps of an operation.

  Args:
    name: of OPERATIONS.
    values: [n], degrees counter-clockwise about the center; columns a row
      ("shear_x") or rows a column ("shear_y"); pixels.
    height: of the images.
    width: of the images.
    xp: jax.numpy, or numpy for float64.

  Returns:
    [n, 6].
  """
  zero, one = xp.zeros_like(values), xp.ones_like(values)
  if name == "rotate":
    angle = -values * (math.pi / 180)
    cos, sin = xp.cos(angle), xp.sin(angle)
    if xp is np:  # As Pillow; right angles are exact.
      cos, sin = np.round(cos, 15), np.round(sin, 15)
    x, y = width / 2, height / 2
    columns = [
      cos,
      sin,
      x - x * cos - y * sin,
      -sin,
      cos,
      y + x * sin - y * cos,
    ]
  else:
    columns = [one, zero, zero, zero, one, zero]
    place = {"shear_x": 1, "translate_x": 2, "shear_y": 3, "translate_y": 5}
    columns[place[name]] = values
  return xp.stack(columns, axis=-1)


def sample(
  images: jax.Array,
  maps: Any,
  *,
  fill: Any,
  resample: str,
  whole: bool = False,
) -> jax.Array:
  """Maps images.

  Args:
    images: float32 [n, H, W, C] in [0, 255].
    maps: [n, 6]; of NumPy in float64, or of JAX.
    fill: gray level or [C] of what lies outside.
    resample: of FILTERS.
    whole: whether to cut results to integers, as Pillow does.

  Returns:
    float32 [n, H, W, C].
  """
  height, width = images.shape[1:3]
  if resample == "nearest":
    inside, rows, columns = _nearest(maps, height, width)
    sampled = _pixels(images, rows, columns)
  else:
    xp = np if isinstance(maps, np.ndarray) else jnp
    x, y = _sources(maps, height, width, xp)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    weigh = _linear if resample == "bilinear" else _cubic
    sampled = _interpolate(images, x - 0.5, y - 0.5, weigh, xp)
    sampled = jnp.clip(sampled, 0, 255)
    if whole:
      sampled = jnp.floor(sampled)
  outside = jnp.broadcast_to(jnp.asarray(fill, jnp.float32), sampled.shape)
  return jnp.where(jnp.asarray(inside)[..., None], sampled, outside)


def shift(images: jax.Array, down: jax.Array, right: jax.Array) -> jax.Array:
  """Moves images by whole pixels; borders are mirrored, without their pixel.

  Args:
    images: [n, H, W, C].
    down: int [n], less than H either way.
    right: int [n], less than W either way.
  """

  def places(side: int, steps: jax.Array) -> jax.Array:
    place = jnp.arange(side)[None, :] - steps[:, None]
    place = jnp.abs(place)
    return jnp.where(place >= side, 2 * (side - 1) - place, place)

  rows, columns = images.shape[1:3]
  return _pixels(
    images,
    jnp.broadcast_to(places(rows, down)[:, :, None], images.shape[:3]),
    jnp.broadcast_to(places(columns, right)[:, None, :], images.shape[:3]),
  )


def _fixed(values: Any) -> jax.Array:
  """Rounds to 16.16 bits, halves away from zero: int32."""
  xp = np if isinstance(values, np.ndarray) else jnp
  scaled = values * _ONE
  return jnp.asarray(
    xp.trunc(scaled + xp.where(scaled < 0, -0.5, 0.5)), jnp.int32
  )


def _nearest(
  maps: Any, height: int, width: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns whether the source of each pixel is inside, its row and column."""
  right = jnp.arange(width, dtype=jnp.int32)[None, None, :]
  down = jnp.arange(height, dtype=jnp.int32)[None, :, None]

  def places(start: int) -> jax.Array:
    a, b, c = (maps[:, start + i] for i in range(3))
    along, across = _fixed(a)[:, None, None], _fixed(b)[:, None, None]
    origin = _fixed(a * 0.5 + b * 0.5 + c)[:, None, None]
    return (origin + right * along + down * across) >> 16

  columns, rows = places(0), places(3)
  inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
  return inside, rows, columns


def _sources(maps: Any, height: int, width: int, xp: Any) -> tuple[Any, Any]:
  """Returns x and y of the source of each pixel, [n, H, W]."""
  right = (xp.arange(width) + 0.5)[None, None, :]
  down = (xp.arange(height) + 0.5)[None, :, None]
  a, b, c, d, e, f = (maps[:, i][:, None, None] for i in range(6))
  return a * right + b * down + c, d * right + e * down + f


def _pixels(
  images: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  """Gathers [n, H, W, C] at int [n, H, W]; places outside are clamped."""
  num, height, width, channels = images.shape
  rows = jnp.clip(rows, 0, height - 1)
  places = rows * width + jnp.clip(columns, 0, width - 1)
  flat = images.reshape(num, height * width, channels)
  gathered = jnp.take_along_axis(flat, places.reshape(num, -1, 1), axis=1)
  return gathered.reshape(images.shape)


def _interpolate(
  images: jax.Array, x: Any, y: Any, weigh: Any, xp: Any
) -> jax.Array:
  """Sums the pixels around each point, with the weights of a filter."""
  left, top = xp.floor(x), xp.floor(y)
  across, down = weigh(x - left), weigh(y - top)
  result = jnp.zeros_like(images)
  for i, vertical in down.items():
    rows = jnp.asarray(top, jnp.int32) + i
    line = jnp.zeros_like(images)
    for j, horizontal in across.items():
      columns = jnp.asarray(left, jnp.int32) + j
      weight = jnp.asarray(horizontal, jnp.float32)[..., None]
      line = line + weight * _pixels(images, rows, columns)
    result = result + jnp.asarray(vertical, jnp.float32)[..., None] * line
  return result


def _linear(d: Any) -> dict[int, Any]:
  return {0: 1 - d, 1: d}


def _cubic(d: Any) -> dict[int, Any]:
  """Weights of Keys' cubic with a = −1, by offset."""
  return {
    -1: -d + 2 * d**2 - d**3,
    0: 1 - 2 * d**2 + d**3,
    1: d + d**2 - d**3,
    2: d**3 - d**2,
  }
