"""Histogram equalization, implemented for accelerators and for CPUs.

An accelerator compares: a one-hot histogram and a one-hot look-up are fused
into their sums and need neither gathers nor scatters. A CPU counts and looks
up, which takes a hundredth of the time there (benchmarks/step/augment.py).
Both results are integers, and equal.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.augment import color

_LEVELS = 256
# Pillow's values are integers; ours may differ slightly after other operations.
_ALMOST_HALF = 0.49


def equalize(images: jax.Array) -> jax.Array:
  """Spreads the levels of each channel evenly, by Pillow's integer rule.

  Args:
    images: float [n, H, W, C] in [0, 255]; rounded to integer levels first, for
      the histogram.

  Returns:
    float32 [n, H, W, C], integer levels in [0, 255].

  Raises:
    ValueError: for images of another rank, size or dtype.
  """
  images = color.check_images(images)
  levels = jnp.floor(images + _ALMOST_HALF).astype(jnp.int32)
  equalized = jax.lax.platform_dependent(
    levels, cpu=by_counting, default=by_comparing
  )
  return equalized.astype(jnp.float32)


def by_comparing(levels: jax.Array) -> jax.Array:
  """Equalizes int32 [n, H, W, C]: 512 comparisons per value."""
  # [n, H, W, C, 256], never stored: XLA fuses it into the sums.
  hits = (
    levels[..., None]
    == jnp.arange(_LEVELS, dtype=jnp.int32)[None, None, None, None, :]
  )
  histogram = jnp.sum(hits, axis=(1, 2), keepdims=True, dtype=jnp.int32)
  table, is_spread = _table(histogram)
  equalized = jnp.sum(jnp.where(hits, table, 0), axis=-1, dtype=jnp.int32)
  return jnp.where(is_spread[..., 0], equalized, levels)


def by_counting(levels: jax.Array) -> jax.Array:
  """Equalizes int32 [n, H, W, C]: a scatter and a gather per value."""
  batch, height, width, channels = levels.shape
  # A row for every channel.
  rows = levels.transpose(0, 3, 1, 2).reshape(batch * channels, height * width)
  places = jnp.arange(len(rows), dtype=jnp.int32)[:, None]
  # zeros_like, so that it varies over devices as the images do.
  empty = jnp.zeros_like(rows, shape=(len(rows), _LEVELS))
  table, is_spread = _table(empty.at[places, rows].add(1))
  equalized = jnp.take_along_axis(table, rows, axis=1)
  equalized = jnp.where(is_spread, equalized, rows)
  equalized = equalized.reshape(batch, channels, height, width)
  return equalized.transpose(0, 2, 3, 1)


def _table(histogram: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Computes the look-up table of levels, as Pillow does.

  Returns:
    int32 [..., 256], the new level of each level; bool [..., 1], False where
    there are too few pixels and Pillow leaves the channel unchanged.
  """
  upto = jnp.cumsum(histogram, axis=-1)
  num_pixels = upto[..., -1:]
  num_brightest = jnp.sum(
    jnp.where(upto == num_pixels, histogram, 0), axis=-1, keepdims=True
  )
  step = (num_pixels - num_brightest) // 255
  table = (step // 2 + upto - histogram) // jnp.maximum(step, 1)
  return jnp.minimum(table, 255), step > 0
