"""RandAugment: Pillow's bytes, the form of training, policies, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps

from paws_jax import errors
from paws_jax.augment import affine
from paws_jax.augment import levels
from paws_jax.augment import rand_augment
from paws_jax.config import rand_augment as policies
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

_MOVED = [
  f"{op}_{mode}"
  for mode in ("nearest0", "bilinear128", "bicubic128")
  for op in affine.OPERATIONS
]
_IN_PLACE = sorted(set(rand_augment.OPERATIONS) - set(affine.OPERATIONS))
# Where a share of the pixels may differ by one level.
_ROUNDED = {
  f"{op}_{mode}"
  for op in ("rotate", "shear_x", "shear_y")
  for mode in ("bilinear128", "bicubic128")
}


@functools.cache
def _golden():
  return golden_reference.load("semi/randaugment_ops")


def _cases(variant):
  """(image, arguments of `apply`, expected images) of a golden variant."""
  arrays, config = _golden()
  op, _, mode = variant.rpartition("_")
  options = {}
  if mode in config["modes"]:
    options = config["modes"][mode]
  else:
    op = variant
  if op == "cutout":
    options = {"fill": 127}
  values = config["values"].get(op, [None])
  for place in range(3):
    image = arrays[f"image{place}"]
    expected = arrays[f"image{place}/{variant}"]
    stack = np.broadcast_to(image, expected.shape)
    value = None if values == [None] else np.asarray(values)
    yield stack, op, value, options, expected


@pytest.mark.parametrize("variant", [*_IN_PLACE, *_MOVED])
def test_operations_give_the_bytes_of_pillow(variant):
  for stack, op, value, options, expected in _cases(variant):
    actual = rand_augment.apply(op, stack, value, **options)
    assert actual.dtype == jnp.uint8
    difference = np.abs(np.asarray(actual, int) - expected)
    if variant in _ROUNDED:
      assert difference.max() <= 1
      assert np.mean(difference > 0) < 0.01
    else:
      np.testing.assert_array_equal(difference, 0)


@pytest.mark.parametrize(
  ("name", "value"), [("rotate", 24.0), ("solarize", 51), ("color", 0.5)]
)
def test_a_scalar_is_the_value_of_all_images_also_compiled(name, value):
  images = np.stack([_golden()[0]["image0"], _golden()[0]["image1"]])
  expected = rand_augment.apply(name, images, np.array([value, value]))
  np.testing.assert_array_equal(
    rand_augment.apply(name, images, value), expected
  )
  compiled = jax.jit(functools.partial(rand_augment.apply, name))
  actual = np.asarray(compiled(images, value), int)
  assert np.abs(actual - np.asarray(expected, int)).max() <= 1


@pytest.mark.parametrize("seed", range(3))
def test_autocontrast_has_pillow_s_rounding_of_doubles(seed):
  rng = np.random.default_rng(seed)
  low, high = sorted(rng.integers(0, 256, 2))
  image = rng.integers(low, high + 1, (12, 12, 3), dtype=np.uint8)
  expected = np.asarray(ImageOps.autocontrast(Image.fromarray(image)))
  actual = rand_augment.apply("autocontrast", image[None])[0]
  np.testing.assert_array_equal(actual, expected)


def test_gray_images_have_one_channel():
  image = _golden()[0]["image0"][..., :1]
  assert rand_augment.apply("rotate", image[None], 30).shape == (1, 32, 32, 1)
  np.testing.assert_array_equal(
    rand_augment.apply("color", image[None], 0.1)[0], image
  )


def test_each_channel_may_have_its_own_fill():
  image = np.zeros((1, 4, 4, 3), np.uint8)
  moved = rand_augment.apply("translate_x", image, 2, fill=(1, 2, 3))
  np.testing.assert_array_equal(moved[0, :, 2:], [[[1, 2, 3]] * 2] * 4)
  assert not np.any(moved[0, :, :2])


# Levels between the unrounded form and Pillow's.
_TOLERANCES = {
  "autocontrast": 1.5,
  "brightness": 1.5,
  "contrast": 1.5,
  "color": 2,
  "sharpness": 2,
}


@pytest.mark.parametrize("variant", _IN_PLACE)
def test_the_form_of_training_is_near_to_pillow_s(variant):
  for stack, op, value, options, expected in _cases(variant):
    values = None if value is None else jnp.asarray(value, jnp.float32)
    actual = rand_augment._in_place(
      op,
      jnp.asarray(stack, jnp.float32),
      values,
      whole=False,
      fill=options.get("fill", 0),
    )
    difference = np.abs(np.asarray(actual) - expected)
    assert difference.max() <= _TOLERANCES.get(op, 0)


def _draws(num_images, seed=0):
  rng = np.random.default_rng(seed)
  shape = (num_images, rand_augment.NUM_DRAWS)
  return jnp.asarray(rng.uniform(size=shape), jnp.float32)


def _images(num_images, side=16, channels=3):
  rng = np.random.default_rng(1)
  shape = (num_images, side, side, channels)
  return jnp.asarray(rng.integers(0, 256, shape), jnp.float32)


@pytest.mark.parametrize(
  "name",
  [
    name if name == "mpl" else pytest.param(name, marks=pytest.mark.slow)
    for name in policies.POLICIES
  ],
)
def test_a_policy_depends_on_each_image_alone(name):
  policy = policies.POLICIES[name]
  images, draws = _images(6, channels=1 if name == "digits" else 3), _draws(6)
  augment = jax.jit(rand_augment.augment, static_argnums=2)
  result = augment(draws, images, policy)
  assert result.shape == images.shape
  assert np.isfinite(result).all()
  assert 0 <= np.min(result) <= np.max(result) <= 255
  turned = augment(draws[::-1], images[::-1], policy)
  np.testing.assert_allclose(turned[::-1], result, atol=1e-3)
  assert np.any(result != images)


def test_a_policy_of_one_operation_applies_it_to_half_of_the_images():
  policy = policies.Policy(
    {"brightness": policies.Range(0, 1)},
    num_ops=1,
    levels=(0, 10),
    cutout=0.0,
  )
  images, draws = _images(400, side=4) + 1, _draws(400)
  augment = jax.jit(rand_augment.augment, static_argnums=2)
  result = augment(draws, images, policy)
  factors = np.median(np.asarray(result / images).reshape(400, -1), axis=1)
  changed = np.asarray(draws[:, 1] < 0.5)
  np.testing.assert_allclose(factors[~changed], 1)
  strengths = np.floor(np.asarray(draws[:, 2]) * 11)
  expected = strengths[changed] / 10
  # A level of 256 is clipped where the factor is 1.
  np.testing.assert_allclose(factors[changed], expected, rtol=1e-5)
  assert set(strengths) == set(range(11))


@pytest.mark.parametrize(
  ("op", "strength", "expected"),
  [
    ("brightness", 9, 0.86),
    ("posterize", 9, 7),
    ("posterize", 5, 6),
    ("solarize", 9, 26),
    ("rotate", 9, 27),
    ("shear_x", 3, 0.09),
    ("translate_y", 9, 8),
  ],
)
def test_policy_a_has_the_values_of_the_paper(op, strength, expected):
  actual = rand_augment._strengths(
    policies.POLICIES["fixmatch"].ops[op],
    jnp.asarray([float(strength)]),
    jnp.ones(1),
    side=32,
  )
  np.testing.assert_allclose(actual, [expected], rtol=1e-6)


@pytest.mark.parametrize("name", ["mpl", "mpl_imagenet"])
def test_a_threshold_of_solarize_is_written_into_eight_bits(name):
  policy = policies.POLICIES[name]
  (level,) = set(policy.levels)
  (threshold,) = set(policy.ops["solarize"][:2])
  assert threshold == int(25.6 * level) % 256


def test_cutout_is_cut_off_at_the_borders():
  images = jnp.full((3, 8, 8, 1), 9.0)
  draws = jnp.asarray([[0.0, 0.0], [0.5, 0.5], [0.99, 0.5]])
  holes = rand_augment.cutout(draws, images, 4)[..., 0] == 127.5
  np.testing.assert_array_equal(holes.sum((1, 2)), [4, 16, 12])
  assert holes[0, :2, :2].all()
  assert holes[1, 2:6, 2:6].all()
  assert holes[2, 5:, 2:6].all()


def test_a_shift_mirrors_the_border():
  images = jnp.arange(4.0)[None, :, None, None] * jnp.ones((2, 4, 4, 1))
  moved = affine.shift(images, jnp.asarray([1, -2]), jnp.asarray([0, 0]))
  np.testing.assert_array_equal(moved[0, :, 0, 0], [1, 0, 1, 2])
  np.testing.assert_array_equal(moved[1, :, 0, 0], [2, 3, 2, 1])


def test_bad_input_is_refused():
  images = np.zeros((2, 4, 4, 3), np.uint8)
  known = ", ".join(rand_augment.OPERATIONS)
  with pytest.raises(
    errors.InputError, match=f"name is 'blur'; known are {known}"
  ):
    rand_augment.apply("blur", images, 1)
  with pytest.raises(errors.InputError, match="resample is 'lanczos'; known"):
    rand_augment.apply("rotate", images, 1, resample="lanczos")
  with pytest.raises(errors.InputError, match="needs a value"):
    rand_augment.apply("rotate", images)
  with pytest.raises(errors.InputError, match="between 1 and 8"):
    rand_augment.apply("posterize", images, 0)
  with pytest.raises(ValueError, match=r"shape \[\] or \[2\]"):
    rand_augment.apply("rotate", images, [1, 2, 3])
  with pytest.raises(ValueError, match=r"shape \[4\] or \[2, 4\]"):
    rand_augment.apply("cutout", images, 3)
  with pytest.raises(ValueError, match="uint8"):
    rand_augment.apply("invert", images.astype(np.float32))


def test_every_operation_of_a_policy_is_known():
  for policy in policies.POLICIES.values():
    assert set(policy.ops) <= set(rand_augment.OPERATIONS)
    assert policy.resample in affine.FILTERS
  assert set(levels.BLENDS) < set(rand_augment.OPERATIONS)
