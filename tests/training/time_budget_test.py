"""Epochs that fit in `train.minutes`; nothing else differs."""

import dataclasses
import functools
import json
import types

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.runs import metrics
from paws_jax.runs import recipe as recipe_lib
from paws_jax.tasks import evaluate
from paws_jax.tasks import pretrain
from paws_jax.training import experiment
from paws_jax.training import restore
from paws_jax.training import step_times
from paws_jax.training import time_budget
from tests import small_runs
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized


def _times(step, evaluation=0.0, epoch_end=0.0):
  return step_times.Times(9.0, step, 0.0, evaluation, epoch_end)


def lay_out(monkeypatch, times, *, every=0, steps_per_epoch=10, **changes):
  """(the recipe, how its epochs were found) for times of a measurement."""
  changes = {"epochs": 0, "minutes": 1.0, "steps_per_call": 1} | changes
  warmup = changes.pop("warmup", 0.0)
  recipe = dataclasses.replace(
    config_lib.Recipe(),
    train=config_lib.Train(**changes),
    optim=config_lib.Optim(warmup_epochs=warmup),
  )
  experiment = types.SimpleNamespace(
    pipeline=types.SimpleNamespace(steps_per_epoch=steps_per_epoch),
    eval=config_lib.Eval(every_steps=every),
  )
  monkeypatch.setattr(step_times, "measure", lambda experiment: times)
  return time_budget.lay_out(recipe, experiment)


@pytest.mark.parametrize(
  ("times", "options", "epochs"),
  [
    # Of 60 seconds, 10 steps of a fifth of a second take two.
    (_times(0.2), {}, 30),
    (_times(0.2), {"minutes": 0.5}, 15),
    # Every second step an evaluation of a fifth.
    (_times(0.199, 0.2), {"every": 2}, 20),
    (_times(0.2, 0.2), {"every": 0}, 30),
    (_times(0.2, epoch_end=1.0), {}, 20),
    # Calls of 4 of 10 steps end with every second epoch.
    (_times(0.19), {"steps_per_call": 4}, 30),
    (_times(0.2), {"minutes": 0.55, "steps_per_call": 4}, 16),
    (_times(0.2), {"warmup": 30.0}, 30),
  ],
)
def test_the_epochs_that_fit(monkeypatch, capsys, times, options, epochs):
  recipe, found = lay_out(monkeypatch, times, **options)
  assert (recipe.train.epochs, recipe.train.minutes) == (epochs, 0)
  assert found["epochs"] == epochs
  assert found["minutes"] == options.get("minutes", 1.0)
  assert found["step_seconds"] == times.step
  assert f"{epochs} epochs of 10 steps fit in" in capsys.readouterr().out
  config_lib.resolve(recipe)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    (
      {"minutes": 0.03},
      r"0\.03, in which 0 epochs fit here \(one takes 2 s\), and a run has at "
      r"least 1: set train\.minutes to at least 0\.04",
    ),
    (
      {"minutes": 0.06, "steps_per_call": 4},
      r"in which 0 epochs fit here .* at least 2: .* at least 0\.07",
    ),
    (
      {"warmup": 30.5},
      r"in which 30 epochs fit .* the warm-up takes 30\.5 .* at least 1\.04",
    ),
    # Three epochs do not end with a call, but four do.
    (
      {"minutes": 0.1, "steps_per_call": 4, "warmup": 3.0},
      r"in which 2 epochs fit .* the warm-up takes 3 .* at least 0\.14",
    ),
  ],
)
def test_too_little_time_is_refused_with_how_much_is_needed(
  monkeypatch, options, words
):
  with pytest.raises(errors.InputError, match=words):
    lay_out(monkeypatch, _times(0.2), **options)


def config(data, changes=()):
  recipe = tiny_recipe.get_config()
  changes = small_runs.SMALL | data | dict(changes)
  recipe.update_from_flattened_dict(changes)
  return recipe


def trained(recipe, workdir):
  """Arrays of the last state, and metrics without times."""
  assert pretrain.run(pretrain.prepare(recipe, str(workdir))) == 0
  run = restore.load(recipe_lib.load(workdir), str(workdir))
  rows = [
    {
      k: v
      for k, v in row.items()
      if k not in ("steps_per_second", "input_stall")
    }
    for row in metrics.read(workdir / metrics.METRICS)
  ]
  return run, rows


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_run_of_minutes_is_that_of_the_epochs_found(
  tmp_path, monkeypatch, capsys, kind
):
  if kind == "disk":
    data = small_runs.on_disk(small_runs.write_photos(tmp_path / "data"))
  else:
    data = small_runs.in_memory(small_runs.write_digits(tmp_path / "data"))
  # Eight devices would take longer.
  create = functools.partial(experiment.create, devices=jax.devices()[:1])
  monkeypatch.setattr(experiment, "create", create)
  by_epochs = trained(config(data), tmp_path / "epochs")
  measure, measured = step_times.measure, []

  def two_epochs_fit(experiment):
    times = measure(experiment)
    measured.append(times)
    per_epoch = experiment.pipeline.steps_per_epoch
    return _times(6 / 2.5 / per_epoch)

  monkeypatch.setattr(step_times, "measure", two_epochs_fit)
  monkeypatch.setattr(step_times, "_SECONDS", 0.1)
  minutes = {"train.epochs": 0, "train.minutes": 0.1}
  recipe = config(data, minutes)
  workdir = tmp_path / "minutes"
  by_minutes = trained(recipe, workdir)
  [times] = measured
  assert times.step > 0
  assert times.evaluation > 0
  assert by_minutes[0].step == by_epochs[0].step
  for name in ("params", "batch_stats"):
    jax.tree.map(
      np.testing.assert_array_equal,
      getattr(by_minutes[0], name),
      getattr(by_epochs[0], name),
    )
  assert by_minutes[1] == by_epochs[1]
  stored = json.loads((workdir / recipe_lib.RECIPE).read_text())
  assert stored["train"]["epochs"] == 2
  assert stored["laid_out"]["minutes"] == 0.1
  # A resume uses the number, and measures nothing.
  capsys.readouterr()
  assert pretrain.run(pretrain.prepare(recipe, str(workdir))) == 0
  assert "this run is finished" in capsys.readouterr().out
  assert len(measured) == 1
  assert evaluate.prepare(recipe, str(workdir)).trained.step
  assert json.loads((workdir / recipe_lib.RECIPE).read_text()) == stored
  with pytest.raises(errors.WorkdirError, match="run of 2 epochs, found by"):
    pretrain.prepare(
      config(data, minutes | {"train.minutes": 9.0}), str(workdir)
    )
