"""Recipes with chunks: which are refused, and runs on both pipelines."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.plan import auto_chunks
from paws_jax.runs import recipe as recipe_lib
from paws_jax.tasks import doctor
from paws_jax.training import experiment
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized


def _config(**changes):
  config = tiny_recipe.get_config()
  config.train.batch_size = 24
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"train__chunks": 5}, "5, which does not divide train.batch_size, 24"),
    ({"train__chunks": -1}, "train.chunks is -1: it must be at least 1"),
    (
      {"train__chunks": 3, "train__bn_groups": 4, "method__name": "simclr"},
      "train.bn_groups is 4 and train.chunks is 3",
    ),
    ({"train__chunks": 8}, "each of 2 devices has 12, but train.chunks is 8"),
    ({"train__chunks": 0}, "'auto', which stands for a number"),
  ],
)
def test_chunks_that_do_not_fit(changes, message):
  config = _config(**changes)
  if "method__name" in changes:
    config.views.small.count = 0
  with pytest.raises(errors.InputError, match=message):
    experiment.create(config_lib.resolve(config), devices=jax.devices()[:2])


def test_a_method_may_forbid_chunks():
  config = config_lib.base("fixmatch")
  config.train.chunks = 2
  with pytest.raises(errors.InputError, match="'fixmatch', which encodes all"):
    config_lib.resolve(config)


def test_auto_is_a_word_for_zero():
  train = dataclasses.replace(config_lib.Recipe().train, chunks="auto")
  assert train.chunks == 0


def test_a_run_keeps_the_number_that_was_found(tmp_path):
  """The same command continues it, on whatever machine."""
  stored = config_lib.resolve(_config(train__chunks=4))
  recipe_lib.write(tmp_path, stored, {})
  asked = config_lib.resolve(_config(train__chunks=0))
  assert recipe_lib.with_length(asked, tmp_path).train.chunks == 0
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  assert recipe_lib.with_length(asked, tmp_path) == stored


def test_the_doctor_keeps_it(tmp_path, monkeypatch):
  stored = config_lib.resolve(_config(train__chunks=4))
  recipe_lib.write(tmp_path, stored, {})
  (tmp_path / "checkpoints" / "2").mkdir(parents=True)
  seen = []

  def create(recipe):
    seen.append(recipe.train.chunks)
    raise ValueError("enough")

  monkeypatch.setattr(auto_chunks, "create", create)
  doctor.run(_config(train__chunks=0), str(tmp_path), train_command="")
  assert seen == [4]


def test_supports_are_padded_to_the_chunks():
  """10 supports in 4 chunks on 2 devices: 16 rows."""
  config = _config(train__chunks=4)
  built = experiment.create(config, devices=jax.devices()[:2])
  inputs = built.pipeline.inputs(0, 1)
  batch = jax.jit(built.pipeline.batch)(inputs, jnp.int32(0))
  assert batch.support.id.shape == (16,)
  np.testing.assert_array_equal(batch.support_mask, np.arange(16) < 10)
