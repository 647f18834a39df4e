"""The number of epochs that fit in `train.minutes`, by a few timed steps."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.distributed import agree
from paws_jax.training import epochs as epochs_lib
from paws_jax.training import evaluator
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib

# Calls before the first that counts: images that were read in advance are used
# up. Then calls for as many seconds, but not more than so many.
_SKIPPED_CALLS = 3
_SECONDS = 3.0
_MOST_CALLS = 100
# What takes at least as long is not timed again without its compilation.
_LONG_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class Times:
  """Measured seconds.

  Attributes:
    step: of a train step, with reading its images.
    evaluation: of the accuracies that are shown while training.
    epoch_end: of the method's work between two epochs.
  """

  step: float
  evaluation: float = 0.0
  epoch_end: float = 0.0


def lay_out(
  recipe: config_lib.Recipe, experiment: experiment_lib.Experiment
) -> tuple[config_lib.Recipe, dict[str, Any]]:
  """Replaces `train.minutes` of a recipe by the epochs that fit.

  Process 0 measures for all; all call it.

  Args:
    recipe: with `train.minutes`.
    experiment: of the recipe. Its steps are run, on a state of its own.

  Returns:
    The recipe with `train.epochs`, and how they were found, for JSON.

  Raises:
    errors.InputError: not one epoch fits, or the warm-up does not.
    errors.BadImageError: as while training.
  """
  times = measure(experiment)
  minutes, per_epoch = recipe.train.minutes, experiment.pipeline.steps_per_epoch
  seconds = seconds_per_epoch(times, experiment)
  # Calls of several steps must end with the run.
  multiple = recipe.train.steps_per_call
  multiple //= math.gcd(multiple, per_epoch)
  epochs = int(60 * minutes / seconds) // multiple * multiple
  shortest = max(multiple, math.ceil(recipe.optim.warmup_epochs))
  if epochs < shortest:
    reason = (
      f"the warm-up takes {recipe.optim.warmup_epochs:g} (optim.warmup_epochs)"
      if shortest > multiple
      else f"a run has at least {multiple}"
    )
    raise errors.InputError(
      f"train.minutes is {minutes:g}, in which {_count(epochs)} fit here (one "
      f"takes {_duration(seconds)}), and {reason}: set train.minutes to at "
      f"least {math.ceil(100 * shortest * seconds / 60) / 100:g}, or make an "
      "epoch shorter."
    )
  print(
    f"{_count(epochs)} of {per_epoch} steps fit in {minutes:g} minutes: "
    f"{_duration(times.step)} a step, {_duration(seconds)} an epoch; "
    "compilation and the evaluation at the end come on top"
  )
  train = dataclasses.replace(recipe.train, epochs=epochs, minutes=0.0)
  found = {"minutes": minutes, "epochs": epochs}
  found |= {f"{k}_seconds": v for k, v in dataclasses.asdict(times).items()}
  return dataclasses.replace(recipe, train=train), found


def seconds_per_epoch(
  times: Times, experiment: experiment_lib.Experiment
) -> float:
  """Computes the seconds of an epoch, with evaluations in between."""
  every = experiment.eval.every_steps
  step = times.step + (times.evaluation / every if every else 0.0)
  return step * experiment.pipeline.steps_per_epoch + times.epoch_end


def measure(experiment: experiment_lib.Experiment) -> Times:
  """Times steps, an evaluation and the end of an epoch; called by all."""
  print("timing a few steps for train.minutes ...")
  trainer, pipeline = experiment.trainer, experiment.pipeline
  per_call = experiment.train.steps_per_call
  state = experiment.initial_state(warm=False)
  call = step_lib.make_train_call(trainer, pipeline, per_call)
  call = call.lower(state, pipeline.input_shapes(per_call)).compile()
  try:
    state, seconds = _time_calls(call, state, pipeline, per_call)
  finally:
    pipeline.close()
  evaluation = epoch_end = 0.0
  if experiment.eval.every_steps:
    judge = evaluator.Evaluator(experiment)

    def evaluate(step: int) -> None:
      judge.monitored_accuracy(state, step)
      judge.pseudo_label_accuracy(state, step)

    evaluation = _time_twice(evaluate)
  if experiment.epoch_steps:
    epoch_end = _time_twice(
      lambda step: jax.block_until_ready(
        epochs_lib.end_epoch(experiment, state, step)
      )
    )
  return Times(seconds / per_call, evaluation, epoch_end)


def _time_calls(
  call: Callable[[state_lib.TrainState, Any], Any],
  state: state_lib.TrainState,
  pipeline: Any,
  per_call: int,
) -> tuple[state_lib.TrainState, float]:
  """Runs calls of the train step; returns the state and seconds of a call."""
  done = 0

  def run(calls: int) -> float:
    nonlocal state, done
    start, waiting = time.perf_counter(), None
    for _ in range(calls):
      inputs = pipeline.inputs(done * per_call, per_call)
      done += 1
      state, metrics = call(state, inputs)
      # As in training, metrics are fetched one call late.
      jax.block_until_ready(waiting)
      waiting = metrics
    jax.block_until_ready(waiting)
    return _of_main(time.perf_counter() - start) / calls

  run(_SKIPPED_CALLS)
  calls = math.ceil(_SECONDS / max(run(_SKIPPED_CALLS), 1e-9))
  seconds = run(min(max(calls, _SKIPPED_CALLS), _MOST_CALLS))
  return state, seconds


def _time_twice(function: Callable[[int], Any]) -> float:
  """Times a function of a step; a second time if the first was short."""
  for step in (0, 1):
    start = time.perf_counter()
    function(step)
    seconds = _of_main(time.perf_counter() - start)
    if seconds > _LONG_SECONDS:
      break
  return seconds


def _of_main(seconds: float) -> float:
  """Returns what process 0 has measured; all call it."""
  return agree.gather(seconds)[0]


def _count(epochs: int) -> str:
  return "1 epoch" if epochs == 1 else f"{epochs:,} epochs"


def _duration(seconds: float) -> str:
  if seconds < 1:
    return f"{1000 * seconds:.3g} ms"
  return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} minutes"
