"""The hooks of a method that few need: groups of the optimizer, a step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import optim
from paws_jax.methods import simclr
from paws_jax.training import optimizer_groups
from tests import toy_method
from tests import toy_training

pytestmark = pytest.mark.unoptimized


def _fields(axis_name=None):
  made = toy_method.create(name="simclr", axis_name=axis_name)
  return {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}


@dataclasses.dataclass(frozen=True)
class Grouped(simclr.Simclr):
  """The trunk is frozen, the prediction head learns at a constant rate."""

  def param_labels(self, params):
    return {
      "trunk": "frozen",
      "projection": "default",
      "prediction": "constant_lr",
    }


@pytest.mark.parametrize("name", ["sgd", "lars", "adamw"])
def test_groups_of_the_optimizer(name):
  section = config_lib.Optim(
    name=name, start_lr=0.125, peak_lr=0.5, final_lr=0.25, warmup_epochs=1.0
  )
  steps = {"steps_per_epoch": 4, "total_steps": 8}
  plain, _ = optim.create(section, **steps)
  grouped = optimizer_groups.create(plain, Grouped(**_fields()), section)
  assert optimizer_groups.create(plain, simclr.Simclr(), section) is plain
  part = {"kernel": jnp.arange(6.0).reshape(3, 2) + 1}
  params = {"trunk": part, "projection": part, "prediction": part}
  grads = jax.tree.map(lambda x: x / 7, params)

  updates = [
    jax.jit(optimizer.update)(grads, optimizer.init(params), params)[0]
    for optimizer in (plain, grouped)
  ]
  kernels = [
    {k: np.asarray(v["kernel"]) for k, v in update.items()}
    for update in updates
  ]
  np.testing.assert_array_equal(kernels[1]["trunk"], 0)
  np.testing.assert_allclose(
    kernels[1]["projection"], kernels[0]["projection"], rtol=1e-6
  )
  # At the first step the schedule is at a quarter of its peak.
  np.testing.assert_allclose(
    kernels[1]["prediction"], 4 * kernels[0]["prediction"], rtol=1e-6
  )


@dataclasses.dataclass(frozen=True)
class TwoSteps(simclr.Simclr):
  """Takes two gradient steps on every batch, and counts them."""

  def step(self, trainer, state, batch, gradient_step):
    state, first = gradient_step(trainer, state, batch)
    state, second = gradient_step(trainer, state, batch)
    return state, second | {"first_loss": first["loss"]}


def test_a_method_can_replace_the_step():
  with jax.enable_x64(True):
    plain, twice = (
      toy_training.make(
        lambda axis_name, kind=kind: kind(**_fields(axis_name)), 1
      )
      for kind in (simclr.Simclr, TwoSteps)
    )
    _, rows = plain.run(plain.initial_state(), 0, 1)
    state, twice_rows = twice.run(twice.initial_state(), 0, 1)
  assert int(state.step) == 2
  assert twice_rows[0]["first_loss"] == pytest.approx(
    rows[0]["loss"], rel=1e-12
  )
  assert twice_rows[0]["loss"] < rows[0]["loss"]
