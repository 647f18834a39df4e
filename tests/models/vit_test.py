"""Vision transformers: sizes, positions, and images that do not fit."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import errors
from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import vit

SETTINGS = batch_norm.LayerSettings(
  momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32
)


# As published, less DINOv2's and DINOv3's mask token.
@pytest.mark.parametrize(
  ("name", "parameters"),
  [
    ("vit_s16", 21_665_664),
    pytest.param("vit_b16", 85_798_656, marks=pytest.mark.slow),
    pytest.param("vit_l16", 303_301_632, marks=pytest.mark.slow),
    ("vit_s14", 22_056_576 - 384),
    pytest.param("vit_b14", 86_580_480 - 768, marks=pytest.mark.slow),
    pytest.param("vit_l14", 304_368_640 - 1024, marks=pytest.mark.slow),
    pytest.param("vit_g14", 1_136_480_768 - 1536, marks=pytest.mark.slow),
    ("vit_s14_reg4", 22_058_112 - 384),
    ("vit_s16_dinov3", 21_601_152 - 384),
  ],
)
def test_sizes(name, parameters):
  encoder = models.create({"name": name})
  side = 2 * encoder.trunk.shape.patch
  variables = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, side, side, 3)), train=False),
    jax.random.key(0),
  )
  leaves = jax.tree.leaves(variables["params"]["trunk"])
  assert sum(math.prod(leaf.shape) for leaf in leaves) == parameters
  assert "trunk" not in variables["batch_stats"]


def test_width_multiplies_the_heads():
  trunk = models.create({"name": "vit_tiny", "width": 3}).trunk
  assert (trunk.num_features, trunk.shape.heads) == (72, 6)


def test_a_resized_ramp_is_a_ramp():
  np.testing.assert_allclose(vit.resize_matrix(9, 4).sum(1), 1)
  ramp = vit.resize_matrix(9, 18) @ np.arange(9)
  # At the ends the weights beyond them are left out.
  np.testing.assert_allclose(np.diff(ramp)[3:-3], 0.5)
  np.testing.assert_allclose(vit.resize_matrix(5, 5), np.eye(5), atol=1e-15)


def test_positions_of_the_same_grid_are_left_alone():
  stored = jnp.ones((1, 10, 2))
  assert vit.resize_positions(stored, (3, 3)) is stored
  assert vit.resize_positions(stored, (2, 4)).shape == (1, 9, 2)


@pytest.mark.parametrize("name", ["vit_tiny", "vit_s14", "vit_s16_dinov3"])
@pytest.mark.parametrize("beyond", [(0, -1), (1, 0), (-100, 0)])
def test_images_that_do_not_fit_the_patches_are_refused(name, beyond):
  encoder = models.create({"name": name})
  patch = encoder.trunk.shape.patch
  height, width = (max(2 * patch + more, 1) for more in beyond)
  with pytest.raises(
    errors.InputError,
    match=rf"patches of {patch} x {patch} pixels, but images of "
    rf"{height} x {width} .* multiples of {patch}\. They are views\.large",
  ):
    jax.eval_shape(
      lambda key: encoder.init(
        key, jnp.zeros((1, height, width, 3)), train=False
      ),
      jax.random.key(0),
    )


def test_rotations_depend_on_places_alone():
  square = vit.rotations((4, 4), 16)
  assert square.shape == (2, 16, 16)
  np.testing.assert_allclose(square[0] ** 2 + square[1] ** 2, 1)
  # The middle of an image has the angle 0.
  np.testing.assert_allclose(vit.rotations((3, 3), 16)[0, 4], 1)


@pytest.mark.unoptimized
@pytest.mark.parametrize("swiglu", [False, True])
def test_features_depend_on_all_patches_and_not_on_other_images(swiglu):
  shape = vit.Shape(4, 8, 1, 2, 2, 1, layer_scale=True, swiglu=swiglu)
  trunk = vit.ViT(shape, SETTINGS)
  rng = np.random.default_rng(0)
  images = rng.normal(size=(3, 8, 12, 2)).astype(np.float32)
  shapes = jax.eval_shape(
    lambda key: trunk.init(key, images, train=False), jax.random.key(0)
  )
  variables = jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes
  )

  @jax.jit
  def apply(images):
    found, pull = jax.vjp(
      lambda x: trunk.apply(variables, x, train=True), images
    )
    return found, pull(jnp.ones_like(found) + found**2)[0]

  found, gradient = apply(images)
  assert found.shape == (3, 8)
  assert np.abs(gradient).reshape(3, 2, 4, 3, 4, 2).max((2, 4, 5)).min() > 0
  changed = images.copy()
  changed[1] = 0
  others, _ = apply(changed)
  np.testing.assert_allclose(others[::2], found[::2], rtol=0, atol=1e-6)
  assert np.abs(others[1] - found[1]).max() > 1e-3
