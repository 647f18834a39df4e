"""The linear protocols' steps on given features, beside the public code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax.evaluation import linear_protocols
from paws_jax.finetune import frozen_trunk
from paws_jax.finetune import linear_settings
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import step as step_lib
from tests import golden_ssl
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized

NAMES = sorted(linear_protocols.PROTOCOLS)


class _Given(nn.Module):
  """Features are the pixels; the statistics would show an update."""

  @nn.compact
  def features(self, images, *, train):
    assert not train
    self.variable("batch_stats", "mean", jnp.zeros, 2)
    return images[:, 0, 0]


def _trainer(name, config, num_devices):
  protocol = linear_protocols.PROTOCOLS[name]
  rate = config.get(f"{name.removeprefix('linear_')}_lr")
  settings = linear_settings.LinearSettings(
    name=name,
    wanted=config["B"],
    batch_size=config["B"],
    epochs=config["epochs"],
    # Its rates are those of the papers' batches.
    learning_rate=rate or protocol.learning_rate(256),
  )
  return frozen_trunk.make_trainer(
    settings,
    _Given(),
    views=config_lib.build_views(tiny_recipe.get_config().views),
    steps_per_epoch=config["N"] // config["B"],
    seed=0,
    mesh=mesh_lib.make_mesh(jax.devices()[:num_devices]),
  )


def _batches(arrays, config, fillers=0):
  """The views of each step; after the images, rows that do not count."""
  size = config["B"]
  for step in range(config["steps"]):
    rows = np.arange(step * size, (step + 1) * size) % config["N"]
    features, labels = arrays["features"][rows], arrays["labels"][rows]
    features = np.pad(features, [(0, fillers), (0, 0)], constant_values=9.0)
    labels = np.pad(labels, (0, fillers), constant_values=-1)
    yield data.Views(
      crops={},
      support=jnp.asarray(features, float)[:, None, None, None],
      support_mask=jnp.asarray(labels >= 0) if fillers else None,
      support_labels=jnp.asarray(labels, jnp.int32),
      class_ids=jnp.arange(config["K"]),
    )


def _run(name, num_devices=1, fillers=0):
  """Yields (step, rate, loss, layer) and gives the last state."""
  arrays, config = golden_ssl.load("ssl/linear_probe_protocols")
  trainer = _trainer(name, config, num_devices)
  variables = {"params": {}, "batch_stats": {"mean": np.full(2, 7.0)}}
  layer = {
    "kernel": jnp.asarray(arrays["weight0"], float).T,
    "bias": jnp.zeros(config["K"]),
  }
  state = frozen_trunk.initial_state(trainer, variables, layer)
  call = jax.jit(
    lambda state, views: trainer.method.step(
      trainer, state, views, step_lib.gradient_step
    )
  )
  found = []
  for views in _batches(arrays, config, fillers):
    state, metrics = call(state, views)
    found.append(jax.device_get((metrics, state.params)))
  np.testing.assert_array_equal(state.extra["batch_stats"]["mean"], 7)
  assert state.batch_stats == {}
  return arrays, found


@pytest.mark.parametrize("name", NAMES)
def test_losses_and_weights_equal_the_public_code(name):
  run = name.removeprefix("linear_")
  with jax.enable_x64(True):
    arrays, found = _run(name)
  rates = [metrics["learning_rate"] for metrics, _ in found]
  np.testing.assert_allclose(rates, arrays[f"{run}/lr"], rtol=1e-12)
  losses = np.array([metrics["loss"] for metrics, _ in found])
  golden_ssl.assert_array(losses, arrays[f"{run}/loss_f64"], True, rtol=1e-10)
  for t, (_, layer) in enumerate(found):
    golden_ssl.assert_near(
      {
        f"{run}/weight.{t}": layer["kernel"].T,
        f"{run}/bias.{t}": layer["bias"],
      },
      arrays,
      True,
    )


def test_devices_and_rows_that_do_not_count_change_nothing():
  with jax.enable_x64(True):
    _, alone = _run("linear_simsiam")
    _, together = _run("linear_simsiam", num_devices=4, fillers=4)
  jax.tree.map(
    lambda one, four: np.testing.assert_allclose(
      one, four, rtol=1e-9, atol=1e-12
    ),
    alone,
    together,
  )
