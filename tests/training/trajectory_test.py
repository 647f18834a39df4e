"""Whole training steps against the public PyTorch code.

Encoder, loss, gradient, LARS and schedule together, five steps long. The
numbers may change only if tests/golden is made anew.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import losses
from paws_jax import methods
from paws_jax import models
from paws_jax import optim
from paws_jax.methods import encoding
from paws_jax.weights import torch_names
from tests import golden_reference

# Name and whether in x64: float32 drifts at the CIFAR recipe's learning rates.
RUNS = [
  pytest.param("wrn10_mc2", True, id="wrn10_mc2-x64"),
  pytest.param("wrn10_mc2_gentle", True, id="gentle-x64"),
  pytest.param("wrn10_mc2_gentle", False, id="gentle-float32"),
  pytest.param("wrn10_pred_mc0_v2", True, id="wrn10_pred_mc0_v2-x64"),
]
pytestmark = [
  pytest.mark.slow,
  pytest.mark.parametrize(("name", "x64"), RUNS),
]


def _method(config, dtype):
  encoder = models.create(
    {
      "name": f"wide_resnet{config['depth']}",
      "width": config["widen"],
      "projection_hidden_dim": 0,
      "output_dim": config["output_dim"],
      "prediction_head": config["use_pred"],
      "zero_init_residual": False,
      "bn_momentum": 0.9,
      "final_bn_momentum": 0.01,
      "freeze_bn": False,
      "init_from": "",
      "dtype": "float32",
    },
    dtype=dtype,
  )
  return methods.create(
    config_lib.base().method.to_dict()
    | {
      "name": "paws",
      "temperature": config["tau"],
      "sharpen_temperature": config["T"],
      "me_max": True,
    },
    encoder=encoder,
    label_smoothing=config["label_smoothing"],
  )


def _optimizer(config):
  schedule = optim.warmup_cosine(
    start_lr=config["start_lr"],
    peak_lr=config["lr"],
    final_lr=config["final_lr"],
    warmup_steps=config["warmup_steps"],
    total_steps=config["total_steps"],
  )
  # For a wide ResNet kernels are what the reference adapts, by name.
  optimizer = optim.lars(
    schedule,
    weight_decay=config["wd"],
    momentum=0.9,
    nesterov=config["nesterov"],
    trust_coefficient=1e-3,
  )
  return optimizer, schedule


def _views(arrays, config, step, dtype):
  """The step's images [views, images, ...] as views of images."""

  def images(key):
    crops = golden_reference.normalise(arrays[f"{key}.{step}"], "cifar")
    return jnp.asarray(crops.swapaxes(0, 1), dtype)

  num_classes = config["num_classes"]
  return data.Views(
    crops={"large": images("views")}
    | ({"small": images("small")} if config["multicrop"] else {}),
    support=images("supports"),
    # Classes a, b, c, a, b, c, ...
    support_labels=jnp.tile(jnp.arange(num_classes), config["s_batch_size"]),
    class_ids=jnp.arange(num_classes),
  )


def _initial(encoder):
  template = jax.eval_shape(
    lambda key: encoder.init(key, jnp.zeros((1, 32, 32, 3)), train=False),
    jax.random.key(0),
  )
  names = torch_names.to_torch(
    jax.tree.map(lambda leaf: np.empty(leaf.shape), template)
  )
  variables = torch_names.from_torch(
    {n: golden_reference.fill(n, value.shape) for n, value in names.items()},
    template,
  )
  params = variables["params"]
  return params, variables["batch_stats"]


def _first_embeddings(encoder, params, batch_stats, views):
  """(h, z) of the first step in the order of the files: view by view."""

  def view_by_view(images):
    return images.swapaxes(0, 1).reshape(-1, *images.shape[2:])

  groups = [[view_by_view(views.support), view_by_view(views.crops["large"])]]
  if "small" in views.crops:
    groups.append([view_by_view(views.crops["small"])])
  outputs = [
    encoder.apply(
      {"params": params, "batch_stats": batch_stats},
      jnp.concatenate(group),
      train=True,
      mutable=["batch_stats"],
    )[0]
    for group in groups
  ]
  return tuple(jnp.concatenate(part) for part in zip(*outputs, strict=True))


def _float32_label_rows(*args, _exact=losses.label_rows, **kwargs):
  """The reference rounds 0.925 and 0.025 to float32, also in float64 runs."""
  return _exact(*args, **kwargs).astype(jnp.float32)


@functools.cache
def _arrays(name):
  arrays, config = golden_reference.load(f"trajectory_{name}")
  images = arrays
  if "images_from" in config:
    images, _ = golden_reference.load(config["images_from"].split(".")[0])
  return arrays, config, images


@functools.cache
def _run(name, x64):
  """Trains once for all tests of a run."""
  _, config, images = _arrays(name)
  result = {"metrics": [], "states": []}
  with (
    jax.enable_x64(x64),
    mock.patch.object(losses, "label_rows", _float32_label_rows),
  ):
    dtype = jnp.float64 if x64 else jnp.float32
    method = _method(config, dtype)
    optimizer, schedule = _optimizer(config)

    # Weights and images are arguments, never constants for XLA to fold.
    @jax.jit
    def train_step(params, batch_stats, opt_state, views):
      def loss(params):
        output = method.loss(
          params, batch_stats, {}, views, step=None, key=None
        )
        return output.loss, (output.metrics, output.batch_stats)

      grads, (metrics, new_stats) = jax.grad(loss, has_aux=True)(params)
      updates, opt_state = optimizer.update(grads, opt_state, params)
      params = optax.apply_updates(params, updates)
      return params, new_stats, opt_state, (metrics, grads)

    params, batch_stats = _initial(method.encoder)
    opt_state = optimizer.init(params)
    views = _views(images, config, 0, dtype)
    embed = jax.jit(functools.partial(_first_embeddings, method.encoder))
    result["h0"], result["z0"] = embed(params, batch_stats, views)
    for step in range(config["steps"]):
      views = _views(images, config, step, dtype)
      params, batch_stats, opt_state, (metrics, grads) = train_step(
        params, batch_stats, opt_state, views
      )
      metrics["learning_rate"] = schedule(step)
      result["metrics"].append(jax.device_get(metrics))
      result["states"].append(
        torch_names.to_torch({"params": params, "batch_stats": batch_stats})
      )
      if step == 0:
        result["grads"] = torch_names.to_torch({"params": grads})
  return result


def _golden(arrays, prefix):
  return {
    key.removeprefix(prefix).removesuffix("_f64"): value
    for key, value in arrays.items()
    if key.startswith(prefix) and key.endswith("_f64")
  }


def test_the_images_labels_and_settings_are_the_references(name, x64):
  del x64
  arrays, config, images = _arrays(name)
  views = _views(images, config, 0, jnp.float32)
  rows = encoding.support_rows(views, smoothing=config["label_smoothing"])
  # Ours go image by image, the file's view by view.
  num_views = config["supervised_views"]
  ours = np.asarray(rows).reshape(-1, num_views, config["num_classes"])
  np.testing.assert_allclose(
    ours.swapaxes(0, 1).reshape(arrays["labels"].shape),
    arrays["labels"],
    rtol=1e-7,
  )


def test_losses_and_learning_rates_equal_the_reference(name, x64):
  arrays, config, _ = _arrays(name)
  metrics = _run(name, x64)["metrics"]
  assert len(metrics) == config["steps"]
  rtol = 1e-9 if x64 else 5e-5
  regularizer = [
    m["me_max_kl"] - np.log(config["num_classes"]) for m in metrics
  ]
  for ours, theirs in (
    ([m["cross_entropy"] for m in metrics], arrays["ploss_f64"]),
    (regularizer, arrays["rloss_f64"]),
    ([m["loss"] for m in metrics], arrays["ploss_f64"] + arrays["rloss_f64"]),
    ([m["learning_rate"] for m in metrics], arrays["lr"]),
  ):
    np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=rtol)


def test_weights_and_running_statistics_equal_the_reference(name, x64):
  arrays, _, _ = _arrays(name)
  states = _run(name, x64)["states"]
  sums = _golden(arrays, "sum.")
  assert set(sums) == set(states[0])
  tolerance = 1e-9 if x64 else 1e-3
  for tensor, expected in sums.items():
    for step, state in enumerate(states):
      actual = golden_reference.checksum(tensor, state[tensor])
      difference = np.abs(actual - expected[step]) / (1 + expected[step, 1])
      assert np.all(difference <= tolerance), (tensor, step)


def test_final_tensors_equal_the_reference(name, x64):
  arrays, _, _ = _arrays(name)
  last = _run(name, x64)["states"][-1]
  final = _golden(arrays, "final.")
  assert len(final) == 4
  for tensor, expected in final.items():
    assert last[tensor].dtype == (np.float64 if x64 else np.float32)
    np.testing.assert_allclose(
      last[tensor],
      expected,
      rtol=0,
      atol=(1e-9 if x64 else 1e-4) * np.abs(expected).max(),
      err_msg=tensor,
    )


def test_first_embeddings_equal_the_reference(name, x64):
  arrays, _, _ = _arrays(name)
  result = _run(name, x64)
  for key in ("h0", "z0"):
    expected = arrays[f"{key}_f64"]
    atol = (1e-8 if x64 else 5e-5) * np.abs(expected).max()
    np.testing.assert_allclose(result[key], expected, rtol=0, atol=atol)


def test_first_gradients_equal_the_reference(name, x64):
  arrays, _, _ = _arrays(name)
  grads = _run(name, x64)["grads"]
  sums = _golden(arrays, "grad0sum.")
  assert set(sums) == set(grads)
  # Biases before a BatchNorm have rounding noise for a gradient: measured by
  # the largest norm, as in models_golden_test.
  largest = max(value[1] for value in sums.values()) ** 0.5
  for tensor, expected in sums.items():
    grad = grads[tensor]
    difference = golden_reference.checksum(tensor, grad) - expected
    scale = largest * np.array([grad.size**0.5, largest, grad.size**0.5])
    tolerance = 1e-8 if x64 else 1e-4
    assert np.all(np.abs(difference) <= tolerance * scale), tensor
