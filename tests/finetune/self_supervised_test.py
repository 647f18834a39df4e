"""Fine-tuning of runs of self-supervised methods; rates of two groups."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import optim
from paws_jax.finetune import linear_head
from paws_jax.finetune import protocols
from paws_jax.finetune import schedule
from paws_jax.training import experiment
from paws_jax.training import restore
from paws_jax.training import state as state_lib
from tests import golden_reference
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized

# Heads as in the papers.
METHODS = {
  "moco": {
    "model.projection_layers": 2,
    "model.projection_norm": False,
    "train.bn_groups": 4,
  },
  "byol": {
    "model.projection_layers": 2,
    "model.prediction_head": True,
    "model.prediction_hidden_dim": 8,
  },
  "simsiam": {
    "model.projection_bias": "none",
    "model.projection_final_norm": True,
    "model.prediction_head": True,
    "model.prediction_hidden_dim": 8,
  },
  "swav": {"model.projection_layers": 2, "method.freeze_steps": 1},
}


@functools.cache
def _trained(name):
  """A run of a method that has taken no steps, of which nothing is computed."""
  config = tiny_recipe.get_config()
  config.method = config_lib.method_section(name)
  config.support.classes_per_step = 10
  config.model.name = "small_resnet"
  config.model.width = 1
  config.views.small.count = 0
  config.update_from_flattened_dict(METHODS[name])
  config.finetune.update(batch_size=8, epochs=20)
  config.finetune.update(schedule="drops", head_learning_rate_ratio=20.0)
  recipe = config_lib.resolve(config)
  built = experiment.create(recipe, devices=jax.devices()[:2])
  state = built.state_shapes()
  variables = built.trainer.method.encoder_variables(state)
  return restore.TrainedRun(
    recipe=recipe,
    workdir=None,
    experiment=built,
    params=variables["params"],
    batch_stats=variables["batch_stats"],
    step=0,
  )


@pytest.mark.parametrize("protocol", protocols.PROTOCOLS)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_fits_the_heads_of_the_method(name, protocol):
  trained = _trained(name)
  made = protocols.PROTOCOLS[protocol](trained)
  setup = made.setup(trained.experiment.dataset.split.labelled_ids)
  # Statistics of all images, as in the published protocols.
  norm = setup.trainer.method.encoder.projection.settings
  assert (norm.num_groups, norm.group_axis_name) == (1, None)
  params = jax.eval_shape(made.initial_params)
  before = jax.eval_shape(
    lambda params, stats: setup.initial_state(params, stats, 0.1),
    params,
    trained.batch_stats,
  )
  after, metrics = jax.eval_shape(
    setup.call, before, setup.pipeline.inputs(0, 1)
  )
  setup.pipeline.close()
  assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, before)
  assert "cross_entropy" in metrics
  if protocol == "linear_head":
    hidden = trained.params["projection"]["fc1"]["kernel"].shape[1]
    assert after.params["head"]["kernel"].shape == (hidden, 10)


def _published(group):
  path = golden_reference.DIRECTORY / "ssl" / "ssl_schedules.json"
  return json.loads(path.read_text())[f"semisup_swav_10pct_{group}"]


@pytest.mark.parametrize("group", ["trunk", "head"])
def test_rates_of_both_groups_are_those_of_swav(group):
  published = _published(group)
  per_epoch = published["steps_per_epoch"]
  trainer = state_lib.Trainer(None, None, None, None, 1, 0, None)
  section = config_lib.resolve(tiny_recipe.get_config()).optim
  trainer = linear_head.with_drops(
    trainer, section, epochs=20, steps_per_epoch=per_epoch
  )
  ratio = 20 if group == "head" else 1
  for step, rate in published["lr"]:
    found = 0.01 * ratio * float(trainer.schedule(step))
    assert found == pytest.approx(rate, rel=1e-6), step


def test_the_recipe_decides_on_both_rates():
  trained = _trained("swav")
  setup = protocols.LinearHead(trained).setup(
    trained.experiment.dataset.split.labelled_ids
  )
  setup.pipeline.close()
  per_epoch = setup.steps_per_epoch
  rates = [
    float(setup.trainer.schedule(epoch * per_epoch)) for epoch in range(20)
  ]
  np.testing.assert_allclose(
    rates, [1] * 12 + [0.2] * 4 + [0.04] * 4, rtol=1e-6
  )
  params = {"encoder": {"w": jnp.ones(3)}, "head": {"bias": jnp.ones(2)}}
  optimizer = setup.trainer.optimizer
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  assert float(updates["head"]["bias"][0]) == pytest.approx(
    20 * float(updates["encoder"]["w"][0])
  )


def test_the_head_has_a_rate_of_its_own():
  params = {"encoder": {"w": jnp.ones(3)}, "head": {"bias": jnp.ones(2)}}
  gradients = jax.tree.map(lambda p: 0.5 * p, params)
  plain = optim.sgd(0.1, weight_decay=0.0, momentum=0.9, nesterov=False)
  optimizer = schedule.scale_by_state_learning_rate(
    linear_head.groups(plain, 20.0)
  )
  walked, state = params, optimizer.init(params)
  expected, other = params, plain.init(params)
  for _ in range(3):
    updates, state = optimizer.update(gradients, state, walked)
    walked = optax.apply_updates(walked, updates)
    updates, other = plain.update(gradients, other, expected)
    expected = optax.apply_updates(expected, updates)
  np.testing.assert_allclose(
    walked["encoder"]["w"], expected["encoder"]["w"], rtol=1e-6
  )
  np.testing.assert_allclose(
    walked["head"]["bias"] - 1, 20 * (expected["head"]["bias"] - 1), rtol=1e-5
  )


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("head_learning_rate_ratio", 20.0),
    ("schedule", "drops"),
    ("nesterov", False),
  ],
)
def test_fields_of_the_linear_head_are_refused_for_the_vote(name, value):
  config = tiny_recipe.get_config()
  config.finetune.protocol = "suncet"
  config.finetune[name] = value
  with pytest.raises(errors.InputError, match=rf"finetune\.{name} is "):
    config_lib.resolve(config)
