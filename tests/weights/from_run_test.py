"""Another run's weights, read from beside it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import errors
from paws_jax.runs import checkpoint
from paws_jax.runs import newest_checkpoint
from paws_jax.training import state
from paws_jax.weights import from_run


def _state(value):
  params = {"trunk": {"conv1": {"kernel": jnp.full((2, 3), value)}}}
  made = state.TrainState(
    step=jnp.int32(4),
    params=params,
    batch_stats={"trunk": {"bn1": {"mean": jnp.ones(3)}}},
    opt_state=({"mu": params}, jnp.zeros(())),
    finite=jnp.ones((), bool),
  )
  return state.to_stored(made)


@pytest.fixture
def workdir(tmp_path):
  with checkpoint.Checkpointer(tmp_path / "checkpoints") as checkpointer:
    checkpointer.save(2, _state(2.0), {})
    checkpointer.save(10, _state(10.0), {})
  return tmp_path


def _listing(path):
  return {p: p.stat().st_mtime_ns for p in path.rglob("*")}


def test_the_newest_checkpoint_is_read_and_nothing_is_changed(workdir):
  (workdir / "checkpoints" / "damaged-12").mkdir()
  before = _listing(workdir)
  assert from_run.is_run(workdir)
  assert not from_run.is_run(workdir / "checkpoints")
  assert newest_checkpoint.steps(workdir) == [2, 10]
  assert newest_checkpoint.steps(workdir / "absent") == []
  variables, step = from_run.read(workdir)
  assert step == 10
  assert set(variables) == {"params", "batch_stats"}
  kernel = variables["params"]["trunk"]["conv1"]["kernel"]
  assert isinstance(kernel, np.ndarray)
  np.testing.assert_array_equal(kernel, np.full((2, 3), 10.0))
  mean = variables["batch_stats"]["trunk"]["bn1"]["mean"]
  np.testing.assert_array_equal(mean, np.ones(3))
  assert _listing(workdir) == before


def test_a_run_without_a_checkpoint_is_named(tmp_path):
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(errors.WeightsError, match="has no checkpoint yet"):
    from_run.read(tmp_path)


def test_damage_is_told(workdir):
  path = workdir / "checkpoints" / "10" / "meta" / "metadata"
  sealed = json.loads(path.read_text())
  text = json.loads(sealed["text"])
  text["arrays"]["params/trunk/conv1/kernel"][2] ^= 1
  path.write_text(json.dumps(sealed | {"text": json.dumps(text)}))
  with pytest.raises(
    errors.WeightsError,
    match=r"checkpoint 10 .*params/trunk/conv1/kernel differ.*remove it",
  ):
    from_run.read(workdir)
  path.write_text("{")
  with pytest.raises(errors.WeightsError, match=r"checkpoint 10 .*JSON"):
    from_run.read(workdir)
