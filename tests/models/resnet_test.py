"""ResNet trunk: sizes, padding, initial values, against golden lists."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import resnet
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

SETTINGS = batch_norm.LayerSettings(
  momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32
)


def _trunk(stage_sizes=(1, 1, 1, 1), stem_width=4, zero_init_residual=False):
  return resnet.ResNet(
    stage_sizes=stage_sizes,
    stem_width=stem_width,
    zero_init_residual=zero_init_residual,
    settings=SETTINGS,
  )


def _shapes(module):
  return jax.eval_shape(
    lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )


def _count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ("key", "width"),
  [
    ("resnet50_imgnt", 1),
    ("resnet50_suncet", 1),
    ("resnet50w2_dim2048", 2),
    ("resnet50w2_dim4096", 2),
    ("resnet50w4_dim2048", 4),
    ("resnet50w4_dim8192", 4),
  ],
)
def test_parameter_counts(key, width):
  lists = json.loads(
    (golden_reference.DIRECTORY / "param_lists.json").read_text()
  )
  encoder = models.create(
    {
      "name": "resnet50",
      "width": width,
      "projection_hidden_dim": 0,
      "output_dim": lists[key]["output_dim"],
      "prediction_head": lists[key]["use_pred"],
      "zero_init_residual": False,
      "bn_momentum": 0.9,
      "final_bn_momentum": 0.9,
      "freeze_bn": False,
      "init_from": "",
      "dtype": "float32",
    }
  )
  params = _shapes(encoder)["params"]
  assert _count(params["trunk"]) == lists[key]["n_params_backbone"]
  assert _count(params["projection"]) == lists[key]["n_params_fc"]
  assert _count(params.get("prediction", {})) == lists[key]["n_params_pred"]
  assert len(jax.tree.leaves(params)) == lists[key]["n_param_tensors"]


@pytest.mark.parametrize(
  ("name", "stages", "millions"),
  [("resnet101", (3, 4, 23, 3), 42.500), ("resnet200", (3, 24, 36, 3), 62.625)],
)
def test_deeper_trunks(name, stages, millions):
  """Backbone sizes as published: 44.549 M and 64.674 M with 1,000 classes."""
  trunk = models.ENCODERS[name](
    config_lib.Model(
      name=name,
      width=1,
      projection_hidden_dim=0,
      output_dim=8,
      prediction_head=False,
      zero_init_residual=False,
      bn_momentum=0.9,
      final_bn_momentum=0.9,
      freeze_bn=False,
      init_from="",
      dtype="float32",
    ),
    SETTINGS,
  )
  assert trunk.stage_sizes == stages
  count = _count(_shapes(trunk)["params"])
  assert count / 1e6 == pytest.approx(millions, abs=5e-3)


def test_the_resnet18_of_small_images():
  """11,689,512 of torchvision's, less a stem of 7x7 and 1,000 classes."""
  trunk = models.create(
    {"name": "resnet18_cifar", "output_dim": 8, "prediction_head": False}
  ).trunk
  params = _shapes(trunk)["params"]
  count = 11_689_512 - (512 + 1) * 1000 - 3 * 64 * (7 * 7 - 3 * 3)
  assert _count(params) == count == 11_168_832
  assert trunk.num_features == 512
  assert params["conv1"]["kernel"].shape == (3, 3, 3, 64)
  assert "downsample_conv" not in params["layer1_0"]
  # 32 pixels in the first stage, 4 in the last.
  variables = _shapes(trunk)
  _, states = jax.eval_shape(
    lambda variables: trunk.apply(
      variables,
      jnp.zeros((1, 32, 32, 3)),
      train=False,
      capture_intermediates=True,
    ),
    variables,
  )
  layers = states["intermediates"]
  sides = [layers[f"layer{n}_1"]["__call__"][0].shape[1] for n in (1, 2, 3, 4)]
  assert sides == [32, 16, 8, 4]


@pytest.mark.parametrize("side", [64, 63, 40])
def test_features_of_any_side_with_the_stated_size(side):
  trunk = _trunk()
  features = jax.eval_shape(
    lambda variables, x: trunk.apply(variables, x, train=False),
    _shapes(trunk),
    jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32),
  )
  assert features.shape == (2, trunk.num_features) == (2, 128)
  assert features.dtype == jnp.float32


def test_convolutions_pad_both_sides_alike():
  # With a kernel that picks its own centre, output i of a layer of stride 2
  # is input 2 i when padding is symmetric, 2 i + 1 under "SAME".
  x = jnp.arange(36.0).reshape(1, 6, 6, 1)
  for size in (3, 7):
    layer = resnet.conv(SETTINGS, 1, size, stride=2, name="conv")
    kernel = np.zeros((size, size, 1, 1), np.float32)
    kernel[size // 2, size // 2] = 1
    y = layer.apply({"params": {"kernel": kernel}}, x)
    np.testing.assert_array_equal(y, x[:, ::2, ::2])


def _block(width, **fields):
  return resnet.Bottleneck(
    **({"stride": 2, "zero_init_residual": False} | fields),
    width=width,
    settings=SETTINGS,
  )


def _init(block):
  init = jax.jit(
    lambda key: block.init(key, jnp.zeros((1, 2, 2, 8)), train=False)
  )
  return init(jax.random.key(0))["params"]


def test_stride_is_in_the_3x3_convolution():
  block = _block(2)
  x = jnp.ones((1, 8, 8, 8))

  def layers(key):
    _, state = block.apply(
      block.init(key, x, train=False),
      x,
      train=False,
      capture_intermediates=True,
      mutable=True,
    )
    return state["intermediates"]

  shapes = jax.eval_shape(layers, jax.random.key(0))
  assert shapes["conv1"]["__call__"][0].shape == (1, 8, 8, 2)
  assert shapes["conv2"]["__call__"][0].shape == (1, 4, 4, 2)


def test_kernels_start_he_normal_by_fan_out():
  params = _init(_block(64))
  for name in ("conv1", "conv2", "conv3", "downsample_conv"):
    kernel = np.asarray(params[name]["kernel"])
    height, width, _, out = kernel.shape
    expected = math.sqrt(2 / (height * width * out))
    assert kernel.std() == pytest.approx(expected, rel=0.1)
    # Not truncated: a normal has 1 % beyond 2.6 deviations.
    assert np.abs(kernel).max() > 2.6 * expected


@pytest.mark.parametrize("zero_init", [False, True])
def test_zero_init_residual_starts_the_last_scale_at_zero(zero_init):
  params = _init(_block(2, zero_init_residual=zero_init))
  for name in ("bn1", "bn2", "bn3", "downsample_bn"):
    scale = np.asarray(params[name]["scale"])
    expected = 0 if name == "bn3" and zero_init else 1
    np.testing.assert_array_equal(scale, np.full_like(scale, expected))
