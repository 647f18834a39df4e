"""The loss of the linear classifier, on one device and on several."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from paws_jax import data
from paws_jax import optim
from paws_jax.finetune import linear_head
from paws_jax.finetune import schedule
from paws_jax.parallel import mesh
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized

NUM_CLASSES = 3


class _Encoder(nn.Module):
  """The mean of the rows that count is a batch statistic; features are 2."""

  axis_name: object
  chunking: object = None

  @nn.compact
  def features(self, images, *, train, mask=None, num_projection_layers):
    assert (train, num_projection_layers) == (True, 1)
    weight = self.param("weight", nn.initializers.ones, (2,))
    mean = self.variable("batch_stats", "mean", jnp.zeros, (2,))
    rows = images[:, 0, :2, 0]
    valid = jnp.ones(len(rows)) if mask is None else mask.astype(float)
    total = jax.lax.psum((rows * valid[:, None]).sum(0), self.axis_name)
    mean.value = total / jax.lax.psum(valid.sum(), self.axis_name)
    return rows * weight[None, :]


def _problem(num_devices, *, fillers=True):
  """Trainer, params, state and views of 8 rows, of which 3 may not count."""
  trainer = state_lib.Trainer(
    method=linear_head.LinearHead(
      encoder=_Encoder(axis_name=mesh.AXES), axis_name=mesh.AXES
    ),
    optimizer=None,
    schedule=None,
    views=None,
    num_support_views=1,
    seed=0,
    mesh=mesh.make_mesh(jax.devices()[:num_devices]),
  )
  rows = np.random.default_rng(0).normal(size=(8, 1, 2, 2, 1))
  labels = np.array([2, -1, 0, 1, -1, 2, 2, -1], np.int32)
  if not fillers:
    labels = np.maximum(labels, 0)
  batch = data.Views(
    crops={},
    support=jnp.asarray(rows, jnp.float32),
    support_mask=jnp.asarray(labels >= 0) if fillers else None,
    support_labels=jnp.asarray(labels),
    class_ids=jnp.arange(NUM_CLASSES),
  )
  rng = np.random.default_rng(1)
  head = {
    "kernel": jnp.asarray(rng.normal(size=(2, NUM_CLASSES)), jnp.float32),
    "bias": jnp.asarray(rng.normal(size=NUM_CLASSES), jnp.float32),
  }
  params = {"encoder": {"weight": jnp.array([1.5, -0.5])}, "head": head}
  state = {"mean": jnp.zeros(2)}
  return trainer, params, state, batch


def _loss(num_devices, **options):
  trainer, params, state, batch = _problem(num_devices, **options)

  def loss(params):
    output = step_lib.global_loss(
      trainer, params, state, {}, batch, jnp.int32(0)
    )
    return output.loss, output

  (value, output), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    params
  )
  return value, output.metrics, output.batch_stats, gradient


@pytest.mark.parametrize("fillers", [True, False])
def test_it_is_the_mean_cross_entropy_of_the_rows_that_count(fillers):
  _, params, _, batch = _problem(1, fillers=fillers)
  value, metrics, state, _ = _loss(1, fillers=fillers)
  counts = np.asarray(batch.support_labels) >= 0
  rows = np.asarray(batch.support)[:, 0, 0, :, 0][counts]
  features = rows * np.array([1.5, -0.5])
  logits = features @ np.asarray(params["head"]["kernel"])
  logits = logits + np.asarray(params["head"]["bias"])
  labels = np.asarray(batch.support_labels)[counts]
  log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  expected = -log_probs[np.arange(len(labels)), labels].mean()
  assert value == pytest.approx(expected, rel=1e-5)
  right = (logits.argmax(-1) == labels).mean()
  assert metrics["accuracy"] == pytest.approx(right)
  assert all(metrics[k] == value for k in linear_head.LinearHead.shown_losses)
  mean = state["mean"]
  np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-5)


def test_four_devices_give_the_same_loss_gradient_and_statistics():
  jax.tree.map(
    lambda one, four: np.testing.assert_allclose(one, four, rtol=2e-5),
    jax.device_get(_loss(1)),
    jax.device_get(_loss(4)),
  )


def test_a_head_of_zeros_knows_nothing():
  fc1 = {"kernel": jnp.ones((4, 6)), "bias": jnp.ones(6)}
  params = linear_head.add_head({"projection": {"fc1": fc1}}, NUM_CLASSES)
  assert params["head"]["kernel"].shape == (6, NUM_CLASSES)
  assert params["head"]["bias"].shape == (NUM_CLASSES,)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(params["head"]))
  assert params["encoder"]["projection"]["fc1"] is fc1


@pytest.mark.parametrize(
  ("name", "nesterov", "final"), [("sgd", True, 0.0), ("lars", False, 0.1)]
)
def test_a_rate_in_the_state_is_the_rate_of_the_schedule(name, nesterov, final):
  rate = 0.3
  section = dict(tiny_recipe.get_config().optim) | {
    "name": name,
    "nesterov": nesterov,
    "warmup_epochs": 0.0,
    "weight_decay": 0.0,
  }

  def create(peak):
    optimizer, _ = optim.create(
      section | {"start_lr": peak, "peak_lr": peak, "final_lr": final * peak},
      steps_per_epoch=2,
      total_steps=4,
    )
    return optimizer

  def walk(optimizer, change):
    params = {"w": jnp.arange(6.0).reshape(2, 3) + 1, "b": jnp.ones(3)}
    state = change(optimizer.init(params))
    for step in range(4):
      gradients = jax.tree.map(lambda p, s=step: jnp.sin(p + s), params)
      updates, state = optimizer.update(gradients, state, params)
      params = optax.apply_updates(params, updates)
    return params

  expected = walk(create(rate), lambda state: state)
  found = walk(
    schedule.scale_by_state_learning_rate(create(1.0)),
    lambda state: (state[0], jnp.float32(rate)),
  )
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected
  )
