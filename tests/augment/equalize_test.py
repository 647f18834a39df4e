"""Equalization by Pillow's rule, the same in both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from paws_jax.augment import equalize


def _levels(kind, seed=0):
  rng = np.random.default_rng(seed)
  shape = (3, 24, 31, 3)
  if kind == "noise":
    return rng.integers(0, 256, shape, dtype=np.uint8)
  if kind == "dark":
    return rng.integers(0, 30, shape, dtype=np.uint8)
  if kind == "flat":
    return np.full(shape, 77, np.uint8)
  # Nearly all pixels have the brightest level: too few are left to spread.
  images = np.full(shape, 200, np.uint8)
  images[:, :5, :5] = rng.integers(0, 200, (3, 5, 5, 3))
  return images


@pytest.mark.parametrize("kind", ["noise", "dark", "flat", "bright"])
def test_both_ways_are_pillow_s(kind):
  images = _levels(kind)
  expected = np.stack(
    [np.asarray(ImageOps.equalize(Image.fromarray(i))) for i in images]
  )
  for way in (equalize.by_comparing, equalize.by_counting):
    result = jax.jit(way)(jnp.asarray(images, jnp.int32))
    np.testing.assert_array_equal(result, expected, err_msg=way.__name__)
  whole = equalize.equalize(jnp.asarray(images, jnp.float32))
  np.testing.assert_array_equal(whole, expected)


def test_an_accelerator_compares_and_a_cpu_counts():
  traced = jax.jit(equalize.equalize).trace(jnp.zeros((1, 8, 8, 3)))
  texts = {
    platform: traced.lower(lowering_platforms=(platform,)).as_text()
    for platform in ("cpu", "cuda", "tpu")
  }
  assert "stablehlo.scatter" in texts["cpu"]
  for platform in ("cuda", "tpu"):
    assert "scatter" not in texts[platform]
    assert "gather" not in texts[platform]
