"""`model.init_from` and `model.freeze_bn` in a whole experiment."""

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.training import experiment
from paws_jax.training import step
from paws_jax.weights import write_torch
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized


def _create(**model):
  config = tiny_recipe.get_config()
  config.model.update(name="small_resnet", **model)
  config_lib.resolve(config)
  return experiment.create(
    config_lib.resolve(config), devices=jax.devices()[:2]
  )


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
  """A file of weights, and what is in it."""
  state = jax.device_get(_create().initial_state())
  variables = jax.tree.map(
    lambda leaf: (
      np.random.default_rng(leaf.size)
      .uniform(0.5, 1.0, leaf.shape)
      .astype(np.float32)
    ),
    {"params": state.params, "batch_stats": state.batch_stats},
  )
  path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
  write_torch.write_torch(variables, path)
  return path, variables, state


def _equal(actual, expected):
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.slow
def test_training_starts_from_the_weights_and_can_keep_the_statistics(
  weights, capsys
):
  path, variables, _ = weights
  built = _create(init_from=str(path), freeze_bn=True)
  state = built.initial_state()
  assert capsys.readouterr().out.startswith(f"init_from: 49 arrays from {path}")
  _equal(jax.device_get(state.params), variables["params"])
  for leaf in jax.tree.leaves((state.params, state.batch_stats)):
    assert leaf.sharding.is_fully_replicated
    assert len(leaf.sharding.device_set) == 2
  call = step.make_train_call(built.trainer, built.pipeline, 1)
  state, _ = call(state, built.pipeline.inputs(0, 1))
  state = jax.device_get(state)
  assert state.finite
  _equal(state.batch_stats, variables["batch_stats"])
  kernel = state.params["trunk"]["conv1"]["kernel"]
  moved = kernel - variables["params"]["trunk"]["conv1"]["kernel"]
  assert 0 < np.max(np.abs(moved)) < 0.1


@pytest.mark.slow
def test_a_place_for_a_checkpoint_needs_no_weights(weights, capsys):
  _, _, state = weights
  built = _create(init_from="/absent/weights.pth")
  _equal(jax.device_get(built.initial_state(warm=False)), state)
  assert not capsys.readouterr().out
  for read in (built.initial_state, built.check_init_from):
    with pytest.raises(FileNotFoundError, match=r"init_from=/absent/weights"):
      read()
  _create(init_from=str(weights[0])).check_init_from()
  with pytest.raises(ValueError, match=r"fc\.fc3\.bias: given \(8,\).*\(9,\)"):
    _create(init_from=str(weights[0]), output_dim=9).check_init_from()
  _create().check_init_from()


def test_frozen_statistics_need_weights_to_start_from():
  with pytest.raises(
    ValueError, match=r"freeze_bn is True but model\.init_from is ''"
  ):
    _create(freeze_bn=True)
