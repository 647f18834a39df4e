"""Wide ResNet trunk: sizes, structure, initial values."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import wide_resnet
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

SETTINGS = batch_norm.LayerSettings(
  momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32
)


def _trunk(depth=10, width=1, final_momentum=0.9):
  return wide_resnet.WideResNet(
    depth=depth, width=width, final_momentum=final_momentum, settings=SETTINGS
  )


def _shapes(module):
  return jax.eval_shape(
    lambda key: module.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )


def _count(tree):
  return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_parameter_counts():
  entry = json.loads(
    (golden_reference.DIRECTORY / "param_lists.json").read_text()
  )["wide_resnet28w2_cifar"]
  encoder = models.create(
    {
      "name": "wide_resnet28",
      "width": 2,
      "projection_hidden_dim": 0,
      "output_dim": 128,
      "prediction_head": False,
      "zero_init_residual": False,
      "bn_momentum": 0.9,
      "final_bn_momentum": 0.9,
      "freeze_bn": False,
      "init_from": "",
      "dtype": "float32",
    }
  )
  params = _shapes(encoder)["params"]
  assert _count(params["trunk"]) == entry["n_params_backbone"]
  assert _count(params) == entry["n_params"]
  assert len(jax.tree.leaves(params)) == entry["n_param_tensors"]


@pytest.mark.parametrize(
  ("depth", "blocks"), [(10, 1), (16, 2), (22, 3), (40, 6)]
)
def test_depth_counts_blocks(depth, blocks):
  params = _shapes(_trunk(depth=depth))["params"]
  assert sum(name.startswith("layer2_") for name in params) == blocks


@pytest.mark.parametrize("depth", [4, 12, 27])
def test_other_depths_are_refused(depth):
  with pytest.raises(ValueError, match=rf"6 k \+ 4.*got {depth}"):
    _trunk(depth=depth).init(
      jax.random.key(0), jnp.zeros((1, 8, 8, 3)), train=False
    )


@pytest.mark.parametrize("side", [32, 18])
def test_features_of_any_side_with_the_stated_size(side):
  trunk = _trunk(width=2)
  features = jax.eval_shape(
    lambda variables, x: trunk.apply(variables, x, train=False),
    _shapes(trunk),
    jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32),
  )
  assert features.shape == (2, trunk.num_features) == (2, 128)
  assert features.dtype == jnp.float32


def test_stride_is_in_the_second_convolution_and_shortcut_sees_raw_input():
  block = wide_resnet.WideBlock(width=4, stride=2, settings=SETTINGS)
  x = -jnp.ones((1, 8, 8, 2))  # ReLU would leave nothing of it.
  variables = block.init(jax.random.key(0), x, train=False)
  _, state = block.apply(
    variables, x, train=False, capture_intermediates=True, mutable=True
  )
  layers = state["intermediates"]
  assert layers["conv1"]["__call__"][0].shape == (1, 8, 8, 4)
  assert layers["conv2"]["__call__"][0].shape == (1, 4, 4, 4)
  shortcut = variables["params"]["shortcut"]
  np.testing.assert_allclose(
    layers["shortcut"]["__call__"][0][0, 0, 0],
    shortcut["bias"] - shortcut["kernel"][0, 0].sum(0),
    rtol=1e-6,
  )


def test_only_the_final_batch_norm_has_the_final_momentum():
  trunk = _trunk(final_momentum=0.25)
  x = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
  # Random numbers from numpy: jitting the true initialisation takes seconds.
  rng = np.random.default_rng(0)
  variables = jax.tree.map(
    lambda leaf: rng.uniform(0, 0.1, leaf.shape).astype(leaf.dtype),
    _shapes(trunk),
  )
  variables["batch_stats"] = jax.tree.map(
    np.zeros_like, variables["batch_stats"]
  )

  @jax.jit
  def update(params, stats):
    _, updates = trunk.apply(
      {"params": params, "batch_stats": stats},
      x,
      train=True,
      mutable=["batch_stats"],
    )
    return updates["batch_stats"]

  first = update(variables["params"], variables["batch_stats"])
  second = update(variables["params"], first)
  # Running means start at 0, so one step leaves (1 - momentum) * mean.
  for momentum, once, twice in (
    (0.25, first["bn1"], second["bn1"]),
    (0.9, first["layer1_0"]["bn1"], second["layer1_0"]["bn1"]),
  ):
    np.testing.assert_allclose(
      twice["mean"], (1 + momentum) * once["mean"], rtol=1e-5, atol=1e-8
    )


def test_initial_values_are_uniform_in_one_over_root_fan_in():
  block = wide_resnet.WideBlock(width=96, stride=2, settings=SETTINGS)
  init = jax.jit(
    lambda key: block.init(key, jnp.zeros((1, 2, 2, 64)), train=False)
  )
  params = init(jax.random.key(0))["params"]
  for name, fan_in in (("conv1", 9 * 64), ("conv2", 9 * 96), ("shortcut", 64)):
    bound = fan_in**-0.5
    for leaf in ("kernel", "bias"):
      values = np.asarray(params[name][leaf])
      assert np.abs(values).max() <= bound
      # Standard deviation of a uniform: bound / sqrt(3), to sampling error.
      assert values.std() == pytest.approx(bound / 3**0.5, rel=0.15)
