"""Heads: layers in order, initial values, stopping early."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import heads
from tests import golden_reference

pytestmark = pytest.mark.unoptimized

SETTINGS = batch_norm.LayerSettings(
  momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32
)


def _shapes(variables):
  return jax.tree.map(jnp.shape, variables["params"])


def _dense(x, params):
  return x @ params["kernel"] + params["bias"]


def _batch_norm(x, params):
  x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
  return x * params["scale"] + params["bias"]


def _random(variables, seed=0):
  """The same tree with every number random, so that nothing is neutral."""
  rng = np.random.default_rng(seed)
  return jax.tree.map(
    lambda v: (0.5 + rng.uniform(size=v.shape)).astype(np.float32), variables
  )


def test_projection_head_is_dense_norm_relu_twice_then_dense():
  head = heads.ProjectionHead(hidden_dim=6, output_dim=3, settings=SETTINGS)
  x = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
  variables = _random(head.init(jax.random.key(0), x, train=False))
  params = variables["params"]
  assert _shapes(variables) == {
    "fc1": {"kernel": (5, 6), "bias": (6,)},
    "bn1": {"scale": (6,), "bias": (6,)},
    "fc2": {"kernel": (6, 6), "bias": (6,)},
    "bn2": {"scale": (6,), "bias": (6,)},
    "fc3": {"kernel": (6, 3), "bias": (3,)},
  }
  expected = []
  for i in "12":
    x_or_last = expected[-1] if expected else x
    hidden = _batch_norm(_dense(x_or_last, params[f"fc{i}"]), params[f"bn{i}"])
    expected.append(np.maximum(hidden, 0))
  expected.append(_dense(expected[-1], params["fc3"]))
  for num_hidden, value in zip((1, 2, None), expected, strict=True):
    actual = head.apply(variables, x, train=True, num_hidden=num_hidden)
    np.testing.assert_allclose(actual, value, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("num_hidden", [0, 3])
def test_projection_head_refuses_a_layer_it_has_not(num_hidden):
  head = heads.ProjectionHead(hidden_dim=6, output_dim=3, settings=SETTINGS)
  with pytest.raises(ValueError, match=f"1 to 2, got {num_hidden}"):
    head.init(
      jax.random.key(0), jnp.ones((2, 4)), train=False, num_hidden=num_hidden
    )


def test_prediction_head_is_norm_dense_norm_relu_dense():
  head = heads.PredictionHead(output_dim=8, settings=SETTINGS)
  x = np.random.default_rng(1).normal(size=(7, 8)).astype(np.float32)
  variables = _random(head.init(jax.random.key(0), x, train=False))
  params = variables["params"]
  assert _shapes(variables) == {
    "bn1": {"scale": (8,), "bias": (8,)},
    "fc1": {"kernel": (8, 2), "bias": (2,)},
    "bn2": {"scale": (2,), "bias": (2,)},
    "fc2": {"kernel": (2, 8), "bias": (8,)},
  }
  hidden = _dense(_batch_norm(x, params["bn1"]), params["fc1"])
  hidden = np.maximum(_batch_norm(hidden, params["bn2"]), 0)
  np.testing.assert_allclose(
    head.apply(variables, x, train=True),
    _dense(hidden, params["fc2"]),
    rtol=2e-4,
    atol=2e-4,
  )


def test_initial_values_are_uniform_in_one_over_root_fan_in():
  head = heads.ProjectionHead(hidden_dim=400, output_dim=9, settings=SETTINGS)
  params = head.init(jax.random.key(0), jnp.ones((2, 100)), train=False)[
    "params"
  ]
  for name, fan_in in (("fc1", 100), ("fc2", 400)):
    bound = fan_in**-0.5
    for leaf in ("kernel", "bias"):
      values = np.asarray(params[name][leaf])
      assert np.abs(values).max() <= bound
      # Standard deviation of a uniform: bound / sqrt(3), to sampling error.
      assert values.std() == pytest.approx(bound / 3**0.5, rel=0.1)


def test_bfloat16_inside_float32_outside():
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=jnp.bfloat16, param_dtype=jnp.float32
  )
  x = jnp.ones((4, 8))
  for head in (
    heads.ProjectionHead(hidden_dim=8, output_dim=8, settings=settings),
    heads.PredictionHead(output_dim=8, settings=settings),
  ):
    variables = head.init(jax.random.key(0), x, train=False)
    y, state = head.apply(
      variables, x, train=True, capture_intermediates=True, mutable=True
    )
    assert y.dtype == jnp.float32
    layers = state["intermediates"]
    del layers["__call__"]
    assert {v.dtype for v in jax.tree.leaves(layers)} == {jnp.dtype("bfloat16")}
    assert {v.dtype for v in jax.tree.leaves(variables)} == {
      jnp.dtype("float32")
    }


def _num_parameters(**fields):
  config = config_lib.base().model
  config.update({"projection_hidden_dim": 2048, "dtype": "float32"} | fields)
  encoder = models.create(config)
  shapes = jax.eval_shape(
    lambda x: encoder.init(jax.random.key(0), x, train=False, method="project"),
    jnp.zeros((1, 2048)),
  )["params"]
  return sum(leaf.size for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize(
  ("method", "fields"),
  [
    (
      "moco_v2",
      {
        "projection_layers": 2,
        "projection_norm": False,
        "output_dim": 128,
        "prediction_head": False,
      },
    ),
    (
      "byol",
      {
        "projection_hidden_dim": 4096,
        "projection_layers": 2,
        "projection_bias": "hidden",
        "output_dim": 256,
        "prediction_hidden_dim": 4096,
        "prediction_bias": "hidden",
      },
    ),
    (
      "simsiam",
      {
        "projection_bias": "none",
        "projection_final_norm": True,
        "output_dim": 2048,
        "prediction_hidden_dim": 512,
        "prediction_bias": "last",
      },
    ),
  ],
)
def test_heads_of_other_methods_have_the_references_parameters(method, fields):
  lists = json.loads(
    (golden_reference.DIRECTORY / "ssl/ssl_param_lists.json").read_text()
  )
  expected = lists["resnet50"][method]["trained_parameters"]
  assert _num_parameters(**fields) == expected


def test_a_final_norm_has_statistics_but_no_parameters():
  head = heads.ProjectionHead(
    hidden_dim=6,
    output_dim=3,
    settings=SETTINGS,
    num_layers=2,
    bias="none",
    final_norm=True,
  )
  x = np.random.default_rng(1).normal(size=(7, 5)).astype(np.float32)
  variables = head.init(jax.random.key(0), x, train=False)
  assert _shapes(variables) == {
    "fc1": {"kernel": (5, 6)},
    "bn1": {"scale": (6,), "bias": (6,)},
    "fc2": {"kernel": (6, 3)},
  }
  assert set(variables["batch_stats"]) == {"bn1", "bn2"}
  y, _ = head.apply(variables, x, train=True, mutable=["batch_stats"])
  np.testing.assert_allclose(np.mean(y, axis=0), 0, atol=1e-6)
  np.testing.assert_allclose(np.var(y, axis=0), 1, rtol=1e-3)
