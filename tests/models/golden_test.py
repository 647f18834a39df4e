"""Whole encoders against outputs of the public PyTorch code.

The numbers may change only if tests/golden is made anew.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import heads
from paws_jax.models import resnet
from paws_jax.weights import torch_names
from tests import golden_reference

SECTION = {
  "name": "wide_resnet10",
  "width": 1,
  "projection_hidden_dim": 0,
  "output_dim": 16,
  "prediction_head": True,
  "zero_init_residual": False,
  "bn_momentum": 0.9,
  "final_bn_momentum": 0.01,
  "freeze_bn": False,
  "init_from": "",
  "dtype": "float32",
}


def _resnet_2112(dtype):
  """No entry of ENCODERS has the stages of golden/resnet_tiny_formula."""
  settings = batch_norm.LayerSettings(
    momentum=0.9, dtype=dtype, param_dtype=dtype
  )
  return models.Encoder(
    trunk=resnet.ResNet((2, 1, 1, 2), 8, False, settings),
    projection=heads.ProjectionHead(256, 24, settings),
    prediction=heads.PredictionHead(24, settings),
  )


def _from_section(dtype, **fields):
  return models.create(SECTION | fields, dtype=dtype)


GOLDEN = {
  "resnet_tiny_pred": functools.partial(_from_section, name="resnet_tiny"),
  "resnet_tiny_formula": _resnet_2112,
  "wrn_tiny": functools.partial(
    _from_section, output_dim=32, prediction_head=False
  ),
  "wrn_tiny_pred_formula": functools.partial(
    _from_section, name="wide_resnet16", output_dim=48
  ),
  "wide_resnet28w2_formula": functools.partial(
    _from_section,
    name="wide_resnet28",
    width=2,
    output_dim=128,
    prediction_head=False,
  ),
  "resnet50_formula": functools.partial(
    _from_section, name="resnet50", output_dim=2048
  ),
}
TINY = [name for name in GOLDEN if "tiny" in name]


def _load(name, dtype):
  """Returns (encoder, variables, groups of crops, golden arrays)."""
  arrays, settings = golden_reference.load(name)
  groups = golden_reference.groups(arrays, settings["normalisation"])
  encoder = GOLDEN[name](dtype)
  template = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )
  if settings.get("weights") == "stored":
    state = {
      key.removeprefix("state."): value
      for key, value in arrays.items()
      if key.startswith("state.")
    }
  else:
    state = {
      key: golden_reference.fill(key, value.shape)
      for key, value in torch_names.to_torch(
        jax.tree.map(lambda leaf: np.empty(leaf.shape), template)
      ).items()
    }
  variables = torch_names.from_torch(state, template)
  return encoder, variables, [jnp.asarray(g, dtype) for g in groups], arrays


def _train(encoder, variables, groups):
  """(h, z, batch_stats) of one training forward, group after group."""
  outputs = []
  for group in groups:
    output, updates = encoder.apply(
      variables, group, train=True, mutable=["batch_stats"]
    )
    variables = variables | updates
    outputs.append(output)
  h, z = (jnp.concatenate(parts) for parts in zip(*outputs, strict=True))
  return h, z, variables["batch_stats"]


@functools.cache
def _results(name, x64):
  """Computes everything that golden/<name>.npz lists, once for all tests."""
  with jax.enable_x64(x64):
    dtype = jnp.float64 if x64 else jnp.float32
    encoder, variables, groups, arrays = _load(name, dtype)

    # Arguments, not constants: XLA would compute with constants, slowly.
    def loss(params, stats, groups):
      h, z, stats = _train(
        encoder, {"params": params, "batch_stats": stats}, groups
      )
      # Files without gradients have no cotangent either.
      weights = jnp.asarray(arrays.get("cotangent", np.ones(z.shape)), dtype)
      return jnp.sum(z * weights), (h, z, stats)

    @jax.jit
    def evaluate(variables, groups):
      outputs = [encoder.apply(variables, g, train=False) for g in groups]
      return tuple(jnp.concatenate(part) for part in zip(*outputs, strict=True))

    result = dict(
      zip(
        ("eval_h", "eval_z"),
        jax.device_get(evaluate(variables, groups)),
        strict=True,
      )
    )
    if name != "resnet50_formula":
      grads, (h, z, stats) = jax.jit(jax.grad(loss, has_aux=True))(
        variables["params"], variables["batch_stats"], groups
      )
      result |= {"train_h": np.asarray(h), "train_z": np.asarray(z)}
      result["after"] = torch_names.to_torch({"batch_stats": stats})
      result["grads"] = torch_names.to_torch({"params": grads})
  return result, arrays


def _assert_close(actual, expected, tolerance, message=""):
  """Compares to a share of the array's largest magnitude."""
  np.testing.assert_allclose(
    actual,
    expected,
    rtol=0,
    atol=tolerance * np.abs(expected).max(),
    err_msg=message,
  )


def _cases(names):
  # Most take 10 to 40 s to compile; the smallest is the fast tests' share.
  fast = {"wrn_tiny"}
  return [
    pytest.param(
      name, x64, marks=[] if name in fast and x64 else [pytest.mark.slow]
    )
    for name in names
    for x64 in (True, False)
  ]


@pytest.mark.parametrize(("name", "x64"), _cases(GOLDEN))
def test_embeddings_equal_the_reference(name, x64):
  result, arrays = _results(name, x64)
  for key, tolerance in (
    ("eval_h", 1e-5),
    ("eval_z", 1e-5),
    ("train_h", 5e-5),
    ("train_z", 5e-5),
  ):
    if f"{key}_f64" in arrays:
      assert result[key].dtype == (np.float64 if x64 else np.float32)
      expected = arrays[f"{key}_f64"]
      _assert_close(result[key], expected, 1e-8 if x64 else tolerance, key)


@pytest.mark.parametrize(("name", "x64"), _cases(TINY))
def test_running_statistics_equal_the_reference(name, x64):
  result, arrays = _results(name, x64)
  keys = {
    key.removeprefix("after.").removesuffix("_f64")
    for key in arrays
    if key.startswith("after.") and key.endswith("_f64")
  }
  assert set(result["after"]) == keys
  for key in keys:
    expected = arrays[f"after.{key}_f64"]
    _assert_close(result["after"][key], expected, 1e-8 if x64 else 5e-5, key)


@pytest.mark.slow
def test_running_statistics_of_the_cifar_encoder():
  result, arrays = _results("wide_resnet28w2_formula", True)
  keys = [key for key in arrays if key.endswith("_f64") and "aftersum" in key]
  assert len(keys) == len(result["after"])
  for key in keys:
    name = key.removeprefix("aftersum.").removesuffix("_f64")
    actual = golden_reference.checksum(name, result["after"][name])
    _assert_close(actual, arrays[key], 1e-8, name)


@pytest.mark.parametrize(("name", "x64"), _cases(TINY))
def test_gradients_equal_the_reference(name, x64):
  result, arrays = _results(name, x64)
  sums = {
    key.removeprefix("gradsum.").removesuffix("_f64"): value
    for key, value in arrays.items()
    if key.startswith("gradsum.") and key.endswith("_f64")
  }
  assert set(result["grads"]) == set(sums)
  # Biases before a BatchNorm have rounding noise for a gradient, so measure
  # by the largest norm in the file: sums and dots of n numbers grow with
  # the norm times sqrt(n), sums of squares with its square.
  largest = max(value[1] for value in sums.values()) ** 0.5
  tolerance = 1e-8 if x64 else 1e-4
  for key, expected in sums.items():
    grad = result["grads"][key]
    difference = golden_reference.checksum(key, grad) - expected
    scale = largest * np.array([grad.size**0.5, largest, grad.size**0.5])
    assert np.all(np.abs(difference) <= tolerance * scale), key


@pytest.mark.parametrize(
  "name", ["wide_resnet28w2_formula", "resnet50_formula"]
)
def test_formula_weights_are_the_references(name):
  arrays, _ = golden_reference.load(name)
  for key, shape in (
    ("conv1.weight", (16, 3, 3, 3) if "wide" in name else (64, 3, 7, 7)),
    ("fc.fc3.weight", (128, 128) if "wide" in name else (2048, 2048)),
  ):
    np.testing.assert_allclose(
      golden_reference.checksum(key, golden_reference.fill(key, shape)),
      arrays[f"fillcheck.{key}"],
      rtol=1e-12,
      atol=1e-9,
    )
