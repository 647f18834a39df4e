"""Tests of paws_jax.augment.views, .colour and .resample.

`augment_torchvision.npz` and `random_resized_crop_statistics.json` in golden/
come from torchvision 0.29.2 on Pillow images (see the golden README).
"""

import functools
import itertools
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import augment
from paws_jax import config
from paws_jax.augment import color
from paws_jax.augment import equalize
from paws_jax.augment import resample
from paws_jax.augment import views as views_lib

pytestmark = pytest.mark.unoptimized

_GOLDEN_DIR = pathlib.Path(__file__).parents[1] / "golden"
_GOLDEN = np.load(_GOLDEN_DIR / "augment_torchvision.npz")
_STATISTICS = json.loads(
  (_GOLDEN_DIR / "random_resized_crop_statistics.json").read_text()
)

_OPERATIONS = {
  "brightness": color.adjust_brightness,
  "contrast": color.adjust_contrast,
  "saturation": color.adjust_saturation,
  "hue": color.adjust_hue,
  "blur": resample.gaussian_blur,
  "solarize": color.solarize,
}

# Grey levels after rounding ours: mean, 99th percentile, max. Pillow rounds or
# truncates after every pass of an operation, we do not; its blur has six passes
# and, at radius 0.5, 0.5 of mean deviation by that alone.
_TOLERANCES = {
  "crop": (0.2, 1, 1),
  "eval": (0.2, 1, 1),
  "brightness": (0.5, 1, 1),
  "contrast": (0.5, 1, 1),
  "saturation": (0.5, 1, 1),
  "greyscale": (0.01, 0, 1),
  "hue": (0.5, 3, 8),
  "blur": (0.53, 2, 3),
  "solarize": (0, 0, 0),
  "equalize": (0, 0, 0),
}

_STATIC = ("spec", "mean", "std", "precision")


def _one_view(keys, images, sizes, **options):
  """One view of each image, by one key each."""
  views = augment.multi_views(keys[:, None], images, sizes, **options)
  return jnp.squeeze(views, axis=1)


_random_views = jax.jit(_one_view, static_argnames=_STATIC)
_multi_views = jax.jit(augment.multi_views, static_argnames=_STATIC)

_PLAIN = {
  "flip_probability": 0.0,
  "jitter_probability": 0.0,
  "grey_probability": 0.0,
  "blur_probability": 0.0,
}


_NORMALIZATION = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def _views(**changes):
  """Arguments of `multi_views`: large views."""
  normalization = {
    key: changes.pop(key, value) for key, value in _NORMALIZATION.items()
  }
  return {"spec": config.ViewSpec(**({"size": 16} | changes)), **normalization}


def _small_views(**changes):
  return _views(**({"size": 8, "scale": (0.05, 0.14)} | changes))


def _cifar_views(**changes):
  return _views(
    **{
      "scale": (0.75, 1.0),
      "jitter_strength": 0.5,
      "grey_probability": 0.0,
      "blur_probability": 0.0,
      "solarize_probability": 0.2,
      "equalize_probability": 0.2,
      "rotation_degrees": 10.0,
      **changes,
    }
  )


def _cifar_small_views():
  return _cifar_views(size=8, scale=(0.3, 0.75))


def _photographs(num_images, side, channels=3):
  """Distinct pieces of the golden photograph, uint8."""
  source = _GOLDEN["source"]
  offsets = np.random.default_rng(0).integers(
    0, [source.shape[0] - side, source.shape[1] - side], (num_images, 2)
  )
  pieces = [
    source[top : top + side, left : left + side, :channels]
    for top, left in offsets
  ]
  return jnp.asarray(np.stack(pieces))


def _keys(seed, *shape):
  return jax.random.split(jax.random.key(seed), shape)


def _full(images):
  return jnp.tile(
    jnp.asarray([images.shape[1:3]], jnp.int32), (images.shape[0], 1)
  )


def _assert_levels(actual, expected, kind):
  deviation = np.abs(np.round(np.asarray(actual)) - expected.astype(np.float64))
  measured = (
    deviation.mean(),
    np.percentile(deviation, 99),
    deviation.max(),
  )
  assert np.all(np.asarray(measured) <= _TOLERANCES[kind]), (
    f"{kind}: mean, p99, max deviate from torchvision by {measured} levels, "
    f"allowed are {_TOLERANCES[kind]}"
  )


# Golden numbers.


@pytest.mark.parametrize("name", [k for k in _GOLDEN if "/" in k])
def test_operation_matches_torchvision(name):
  kind, factor = name.split("/")
  images = jnp.asarray(_GOLDEN["input"])[None]
  actual = _OPERATIONS[kind](images, jnp.asarray([float(factor)]))
  _assert_levels(actual[0], _GOLDEN[name], kind)


@pytest.mark.parametrize("kind", ["greyscale", "equalize"])
def test_operation_without_factor_matches_torchvision(kind):
  module = equalize if kind == "equalize" else color
  actual = getattr(module, kind)(jnp.asarray(_GOLDEN["input"])[None])
  _assert_levels(actual[0], _GOLDEN[kind], kind)


@pytest.mark.parametrize(
  ("name", "box"),
  [
    ("input", "crop_box_ijhw"),
    ("crop_small", "crop_small_box_ijhw"),
    ("crop_up", "crop_up_box_ijhw"),
  ],
)
def test_crop_matches_torchvision(name, box):
  # On a larger canvas, filled with what must not be read.
  source = np.pad(
    _GOLDEN["source"], ((0, 9), (0, 30), (0, 0)), constant_values=255
  )
  actual = resample.crop_and_resize(
    jnp.asarray(source)[None],
    jnp.asarray(_GOLDEN[box], jnp.int32)[None],
    size=_GOLDEN[name].shape[0],
  )
  _assert_levels(actual[0], _GOLDEN[name], "crop")


@pytest.mark.parametrize("transpose", [False, True])
def test_evaluation_view_matches_torchvision(transpose):
  source, expected = _GOLDEN["eval_source"], _GOLDEN["eval_crop"]
  if transpose:
    source, expected = source.swapaxes(0, 1), expected.swapaxes(0, 1)
  canvas = np.pad(source, ((0, 50), (0, 20), (0, 0)), constant_values=255)
  actual = augment.evaluation_view(
    jnp.asarray(canvas)[None],
    jnp.asarray([source.shape[:2]], jnp.int32),
    resize=128,
    size=112,
  )
  _assert_levels(actual[0], expected, "eval")


@pytest.mark.parametrize("name", list(_STATISTICS))
def test_crop_boxes_follow_torchvisions_law(name):
  case = _STATISTICS[name]
  num_boxes = 40_000
  size = (case["height"], case["width"])
  boxes = jax.jit(
    functools.partial(
      augment.crop_boxes,
      scale=tuple(case["scale"]),
      aspect_ratio=(3 / 4, 4 / 3),
    )
  )(
    jax.random.uniform(jax.random.key(1), (num_boxes, 4, 10)),
    jnp.tile(jnp.asarray([size]), (num_boxes, 1)),
  )
  top, left, height, width = np.asarray(boxes).T
  assert np.all((top >= 0) & (left >= 0) & (height > 0) & (width > 0))
  assert np.all((top + height <= size[0]) & (left + width <= size[1]))
  actual = {
    "area_fraction": height * width / (size[0] * size[1]),
    "aspect": width / height,
    "top": top,
    "left": left,
  }
  probabilities = np.asarray([0.05, 0.25, 0.5, 0.75, 0.95])
  for quantity, values in actual.items():
    expected = case[quantity]
    # Both sides are samples of 40,000: five standard errors of the difference.
    margin = 5 * np.std(values) * np.sqrt(2 / num_boxes) + 1e-6
    assert abs(values.mean() - expected["mean"]) <= margin, quantity
    # Quantiles are compared as probabilities, where their error is known; half
    # of the values tied with a quantile count as below it.
    quantiles = np.asarray(expected["quantiles"][1:-1])[:, None]
    tied = np.isclose(values[None, :], quantiles, rtol=1e-6)
    below = ((values[None, :] < quantiles) & ~tied).mean(axis=1)
    upto = below + tied.mean(axis=1)
    slack = 5 * np.sqrt(2 * probabilities * (1 - probabilities) / num_boxes)
    assert np.all(below <= probabilities + slack), quantity
    assert np.all(upto >= probabilities - slack), quantity


# Properties of single operations.


def test_crop_boxes_of_extreme_images_fall_back_to_the_centre():
  sizes = jnp.asarray([[10, 1000], [1000, 10], [12, 12]], jnp.int32)
  boxes = augment.crop_boxes(
    jax.random.uniform(jax.random.key(0), (3, 4, 10)),
    sizes,
    scale=(0.9, 1.0),
    aspect_ratio=(3 / 4, 4 / 3),
  )
  np.testing.assert_array_equal(boxes[0], [0, 493, 10, 13])
  np.testing.assert_array_equal(boxes[1], [493, 0, 13, 10])


def test_crop_of_the_whole_image_is_the_image_and_flip_mirrors_it():
  images = _photographs(2, 24)
  boxes = jnp.tile(jnp.asarray([[0, 0, 24, 24]], jnp.int32), (2, 1))
  cropped = resample.crop_and_resize(
    images, boxes, size=24, flip=jnp.asarray([False, True])
  )
  np.testing.assert_array_equal(cropped[0], images[0])
  np.testing.assert_array_equal(cropped[1], images[1, :, ::-1])


def test_evaluation_view_without_resizing_cuts_the_centre_or_pads_with_black():
  images = _photographs(3, 12)
  sizes = jnp.asarray([[12, 12], [9, 12], [5, 12]], jnp.int32)
  views = augment.evaluation_view(images, sizes, resize=0, size=8)
  np.testing.assert_array_equal(views[0], images[0, 2:10, 2:10])
  # round(0.5) is 0 in Python, hence in torchvision.
  np.testing.assert_array_equal(views[1], images[1, 0:8, 2:10])
  np.testing.assert_array_equal(views[2, 1:6], images[2, 0:5, 2:10])
  assert not views[2, :1].any()
  assert not views[2, 6:].any()


@pytest.mark.parametrize("channels", [1, 3])
def test_neutral_factors_are_identities(channels):
  images = _photographs(2, 20, channels).astype(jnp.float32)
  ones, zeros = jnp.ones(2), jnp.zeros(2)
  for actual in (
    color.adjust_brightness(images, ones),
    color.adjust_contrast(images, ones),
    color.adjust_saturation(images, ones),
    color.solarize(images, 256 * ones),
    resample.gaussian_blur(images, zeros),
    resample.rotate(images, zeros),
  ):
    np.testing.assert_allclose(actual, images, atol=1e-3)
    assert actual.dtype == jnp.float32


def test_grey_images_keep_their_saturation_hue_and_greyscale():
  images = _photographs(2, 8, 1).astype(jnp.float32)
  factors = jnp.asarray([0.2, 0.3])
  for actual in (
    color.adjust_saturation(images, factors),
    color.adjust_hue(images, factors),
    color.greyscale(images),
  ):
    np.testing.assert_array_equal(actual, images)


def test_rotate_is_counter_clockwise_and_repeats_the_border():
  images = _photographs(3, 9).astype(jnp.float32)
  turned = resample.rotate(images, jnp.asarray([90.0, -90.0, 45.0]))
  np.testing.assert_allclose(turned[0], np.rot90(images[0]), atol=1e-2)
  np.testing.assert_allclose(turned[1], np.rot90(images[1], -1), atol=1e-2)
  np.testing.assert_allclose(
    resample.rotate(jnp.full((1, 6, 9, 1), 7.0), jnp.asarray([30.0])), 7.0
  )


def test_equalize_leaves_flat_channels_alone():
  images = jnp.full((1, 8, 8, 3), 130.0).at[0, 0, 0, 0].set(7.0)
  np.testing.assert_array_equal(equalize.equalize(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_applies_the_operations_in_the_given_order(channels):
  orders = np.asarray(list(itertools.permutations(range(4))))
  image = _photographs(1, 12, channels).astype(jnp.float32)
  images = jnp.tile(image, (24, 1, 1, 1))
  factors = {
    "brightness": 1.6,
    "contrast": 0.5,
    "saturation": 1.7,
    "hue": 0.15,
  }
  actual = color.jitter(
    images,
    **{name: jnp.full(24, value) for name, value in factors.items()},
    ranks=jnp.asarray(np.argsort(orders, axis=1)),
  )
  names = list(factors)
  for row, order in enumerate(orders):
    expected = image
    for operation in order:
      name = names[operation]
      value = jnp.asarray([factors[name]])
      expected = _OPERATIONS[name](expected, value)
    # Fused arithmetic may fall on the other side of one of hue's 255 steps.
    deviation = np.abs(np.asarray(actual[row]) - np.asarray(expected[0]))
    assert np.mean(deviation > 1e-3) < 0.01, order
    assert deviation.max() < 8, order


def test_the_range_of_saturation_is_a_field_of_its_own():
  low, high = jnp.zeros(1), jnp.full(1, 1 - 1e-6)
  for draw, factor in ((low, 0.8), (high, 1.2)):
    factors = augment.jitter_factors([draw] * 8, 0.5, saturation=0.4)
    np.testing.assert_allclose(factors["saturation"], factor, rtol=1e-4)
    np.testing.assert_allclose(
      factors["contrast"], 0.6 if draw is low else 1.4, rtol=1e-4
    )


def test_jitter_draws_every_order_equally_often():
  draws = list(jax.random.uniform(jax.random.key(0), (8, 24_000)))
  factors = augment.jitter_factors(draws, 1.0)
  codes = np.asarray(factors["ranks"]) @ np.asarray([64, 16, 4, 1])
  values, counts = np.unique(codes, return_counts=True)
  assert len(values) == 24
  assert np.all(np.abs(counts - 1000) < 5 * np.sqrt(1000))
  for name in ("brightness", "contrast", "saturation"):
    assert 0.2 <= factors[name].min() < 0.21
    assert 1.79 < factors[name].max() <= 1.8
  assert np.abs(factors["hue"]).max() <= 0.2
  assert augment.jitter_factors(draws, 2.0)["contrast"].min() >= 0


def test_normalise_maps_mean_to_zero_and_std_to_one():
  images = jnp.asarray([[[[0.4, 0.5, 0.6]], [[0.6, 0.8, 0.7]]]]) * 255
  actual = augment.normalize(images, (0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
  np.testing.assert_allclose(actual[0, 0, 0], 0, atol=1e-6)
  np.testing.assert_allclose(actual[0, 1, 0], 1, rtol=1e-5)


# Whole views.


@pytest.mark.slow
@pytest.mark.parametrize("settings", [_views, _cifar_views])
def test_view_depends_on_its_key_and_image_only(settings):
  draw = functools.partial(_random_views, **settings())
  keys, images = _keys(0, 64), _photographs(64, 32)
  sizes = jnp.asarray([[32, 32], [20, 31]] * 32, jnp.int32)
  views = draw(keys, images, sizes)
  assert np.isfinite(views).all()
  order = np.random.default_rng(0).permutation(64)
  permuted = draw(_keys(0, 64)[order], images[order], sizes[order])
  np.testing.assert_array_equal(permuted, views[order])
  # Compiled for other batch sizes, sums are rounded otherwise: every selection
  # by a computed value must bear that.
  for num_images in (1, 8):
    part = slice(8, 8 + num_images)
    alone = draw(_keys(0, 64)[part], images[part], sizes[part])
    np.testing.assert_allclose(alone, views[part], atol=1e-4)
  other = draw(_keys(1, 64), images, sizes)
  assert np.all(np.abs(other - views).max(axis=(1, 2, 3)) > 0.1)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [_small_views, _cifar_small_views])
def test_sharded_multi_views_are_the_views_of_each_key(settings):
  keys, images = _keys(0, 16, 2), _photographs(16, 24)
  sizes = _full(images)
  mesh = jax.make_mesh(
    (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
  )
  sharding = jax.NamedSharding(mesh, jax.P("data"))
  views = _multi_views(
    *jax.device_put((keys, images, sizes), sharding),
    **settings(),
  )
  assert views.shape == (16, 2, 8, 8, 3)
  assert views.dtype == jnp.float32
  assert views.sharding.is_equivalent_to(sharding, views.ndim)
  for view in range(2):
    single = _random_views(keys[:, view], images, sizes, **settings())
    np.testing.assert_allclose(views[:, view], single, atol=1e-4)


@pytest.mark.parametrize(
  ("field", "probability"),
  [
    ("flip_probability", 0.5),
    ("grey_probability", 0.2),
    ("blur_probability", 0.5),
    ("equalize_probability", 0.2),
    ("solarize_probability", 0.2),
    pytest.param("jitter_probability", 0.8, marks=pytest.mark.slow),
  ],
)
def test_probability_is_respected(field, probability):
  num_images = 600
  images = jnp.tile(_photographs(1, 24), (num_images, 1, 1, 1))
  whole = {"size": 24, "scale": (1.0, 1.0)}
  plain = _PLAIN | whole | {"aspect_ratio": (1.0, 1.0)}
  views = _random_views(
    _keys(3, num_images),
    images,
    _full(images),
    **_views(**(plain | {field: probability})),
  )
  undistorted = augment.normalize(images, **_NORMALIZATION)
  changed = np.abs(views - undistorted).max(axis=(1, 2, 3)) > 1e-3
  # Four standard errors, and thresholds above the brightest pixel.
  assert abs(changed.mean() - probability) < 0.08
  np.testing.assert_allclose(views[~changed], undistorted[~changed], atol=1e-4)


def test_a_fixed_level_of_solarization_inverts_from_that_level_on():
  images = _photographs(4, 24)
  views = _random_views(
    _keys(5, len(images)),
    images,
    _full(images),
    **_views(
      **_PLAIN
      | {
        "size": 24,
        "scale": (1.0, 1.0),
        "aspect_ratio": (1.0, 1.0),
        "solarize_probability": 1.0,
        "solarize_threshold": (128.0, 128.0),
      }
    ),
  )
  levels = np.asarray(images, np.float32)
  expected = augment.normalize(
    jnp.where(levels >= 128, 255 - levels, levels), **_NORMALIZATION
  )
  close = np.abs(views - expected) < 1e-3
  # Resampling may move a level across the threshold.
  assert close.mean() > 0.99


def test_a_weak_view_is_the_image_moved_and_a_strong_one_is_drawn_anew():
  images = _photographs(40, 24)
  plain = _PLAIN | {"size": 24, "scale": (1.0, 1.0), "aspect_ratio": (1.0, 1.0)}
  num_images, sizes = len(images), _full(images)
  weak = _random_views(
    _keys(6, num_images),
    images,
    sizes,
    **_views(**plain | {"shift_pixels": 2}),
  )
  expected = np.asarray(augment.normalize(images, **_NORMALIZATION))
  padded = np.pad(expected, [(0, 0), (2, 2), (2, 2), (0, 0)], mode="reflect")
  found = {}
  for place, view in enumerate(np.asarray(weak)):
    for top in range(5):
      for left in range(5):
        piece = padded[place, top : top + 24, left : left + 24]
        if np.allclose(view, piece, atol=1e-4):
          found[place] = (top, left)
  assert len(found) == num_images
  assert {top for top, _ in found.values()} == set(range(5))
  assert {left for _, left in found.values()} == set(range(5))
  strong = _random_views(
    _keys(6, num_images),
    images,
    sizes,
    **_views(**plain | {"rand_augment": "fixmatch"}),
  )
  # The square of Cutout; with it, no view is the image itself.
  assert all(np.abs(strong - expected).max(axis=(1, 2, 3)) > 0.1)


@pytest.mark.parametrize(
  "settings", [_views, _small_views, _cifar_views, _cifar_small_views]
)
def test_program_of_views_has_no_gather_or_scatter(settings):
  images = _photographs(2, 24)
  # For an accelerator: a CPU may, where it is faster.
  lowered = (
    jax.jit(functools.partial(augment.multi_views, **settings()))
    .trace(_keys(0, 2, 2), images, _full(images))
    .lower(lowering_platforms=("tpu",))
  )
  # In StableHLO; XLA makes no gather out of other operations.
  operations = set(re.findall(r"stablehlo\.(\w+)", lowered.as_text()))
  assert "dot_general" in operations
  assert not {name for name in operations if re.search("gather|scatter", name)}


def test_operations_of_probability_zero_are_not_in_the_program():
  images = _photographs(2, 24)

  def num_operations(**changes):
    lowered = jax.jit(functools.partial(_one_view, **_views(**changes))).lower(
      _keys(0, 2), images, _full(images)
    )
    return lowered.as_text().count("stablehlo.")

  least = num_operations(**_PLAIN)
  for changes in (
    {"flip_probability": 0.1},
    {"jitter_probability": 0.1},
    {"grey_probability": 0.1},
    {"blur_probability": 0.1},
    {"solarize_probability": 0.1},
    {"equalize_probability": 0.1},
    {"rotation_degrees": 5.0},
    {"shift_pixels": 2},
    {"rand_augment": "fixmatch"},
    {"cutout_size": 4},
  ):
    assert num_operations(**(_PLAIN | changes)) > least + 5, changes
  no_strength = {"jitter_probability": 0.8, "jitter_strength": 0.0}
  assert num_operations(**(_PLAIN | no_strength)) == least


@pytest.mark.slow
def test_grey_images_pass_through_every_operation():
  images = _photographs(2, 24, 1)
  settings = _cifar_views(
    size=8,
    scale=(0.3, 0.75),
    mean=(0.5,),
    std=(0.25,),
    jitter_probability=1.0,
    grey_probability=0.5,
    blur_probability=0.5,
  )
  views = _random_views(_keys(0, 2), images, _full(images), **settings)
  assert views.shape == (2, 8, 8, 1)
  assert np.isfinite(views).all()


# Wrong inputs are refused by name.


def test_wrong_arguments_are_refused_with_the_numbers():
  images = _photographs(2, 24)
  settings = _views()
  sizes = _full(images)
  views = functools.partial(_one_view, **settings)
  for call, message in (
    (lambda: views(_keys(0, 2), images[0], sizes), r"images .*\[24, 24, 3\]"),
    (
      lambda: views(_keys(0, 2), images[..., :2], sizes),
      r"images .*24, 24, 2\]",
    ),
    (
      lambda: views(_keys(0, 2), images.astype(jnp.int32), sizes),
      "images .*int32",
    ),
    (
      lambda: views(_keys(0, 1), images, sizes),
      r"keys .*\[2, views\].*\[1, 1\]",
    ),
    (lambda: views(jnp.zeros((2, 2)), images, sizes), "keys .*float32"),
    (
      lambda: views(_keys(0, 2), images, sizes[:1]),
      r"sizes .*\[2, 2\].*\[1, 2\]",
    ),
    (lambda: views(_keys(0, 2), images, sizes / 2), "sizes .*float32"),
    (
      lambda: views(_keys(0, 2), images[..., :1], sizes),
      "mean .* 1 for .*has 3",
    ),
    (
      lambda: augment.evaluation_view(images, sizes, resize=20, size=22),
      "resize .* 22, but is 20",
    ),
    (
      lambda: augment.evaluation_view(images, sizes, resize=0, size=25),
      "24 x 24 .* 25",
    ),
    (
      lambda: augment.crop_boxes(
        jnp.zeros((2, 10)), sizes, scale=(0.5, 1.0), aspect_ratio=(1.0, 1.0)
      ),
      r"draws .*\[2, 4, tries\].*\[2, 10\]",
    ),
    (
      lambda: resample.crop_and_resize(images, sizes, size=8),
      r"boxes .*\[2, 4\].*\[2, 2\]",
    ),
    (
      lambda: color.adjust_hue(images, jnp.zeros(3)),
      r"turns .*\[2\].*\[3\]",
    ),
  ):
    # Refused by shapes: nothing is computed.
    with pytest.raises(ValueError, match=message):
      jax.eval_shape(call)


def test_a_new_operation_leaves_the_draws_of_the_others(monkeypatch):
  keys = jax.random.split(jax.random.key(3), 4)
  # Of two functions, since JAX would take the second for the first.
  before = jax.jit(lambda keys: views_lib._draw(keys))(keys)
  monkeypatch.setattr(views_lib, "_DRAWS", views_lib._DRAWS | {"new": 3})
  keys = jax.random.split(jax.random.key(3), 4)
  after = jax.jit(lambda keys: views_lib._draw(keys))(keys)
  assert after.pop("new").shape == (4, 3)
  assert after.keys() == before.keys()
  for name, draws in before.items():
    np.testing.assert_array_equal(after[name], draws)
