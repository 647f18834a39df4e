"""The number of epochs that fit in `train.minutes`, by a few timed steps."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import text
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import step_times


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
  print("timing a few steps for train.minutes ...")
  times, words = step_times.measure(experiment), step_times.in_words
  minutes, per_epoch = recipe.train.minutes, experiment.pipeline.steps_per_epoch
  seconds = seconds_per_epoch(times, experiment)
  # Calls of several steps must end with the run.
  multiple = recipe.train.steps_per_call
  multiple //= math.gcd(multiple, per_epoch)
  epochs = int(60 * minutes / seconds) // multiple * multiple
  fitting = text.count(epochs, "epoch")
  warmup = math.ceil(recipe.optim.warmup_epochs)
  shortest = max(1, math.ceil(warmup / multiple)) * multiple
  if epochs < shortest:
    reason = (
      f"the warm-up takes {recipe.optim.warmup_epochs:g} (optim.warmup_epochs)"
      if warmup > multiple
      else f"a run has at least {multiple}"
    )
    raise errors.InputError(
      f"train.minutes is {minutes:g}, in which {fitting} fit here (one "
      f"takes {words(seconds)}), and {reason}: set train.minutes to at "
      f"least {math.ceil(100 * shortest * seconds / 60) / 100:g}, or make an "
      "epoch shorter."
    )
  print(
    f"{fitting} of {text.count(per_epoch, 'step')} fit in {minutes:g} "
    f"minutes: {words(times.step)} a step, {words(seconds)} an epoch; "
    "compilation and the evaluation at the end come on top"
  )
  train = dataclasses.replace(recipe.train, epochs=epochs, minutes=0.0)
  found = {"minutes": minutes, "epochs": epochs}
  found |= {
    f"{name}_seconds": getattr(times, name)
    for name in ("step", "evaluation", "epoch_end")
  }
  return dataclasses.replace(recipe, train=train), found


def seconds_per_epoch(
  times: step_times.Times, experiment: experiment_lib.Experiment
) -> float:
  """Computes the seconds of an epoch, with evaluations in between."""
  every = experiment.eval.every_steps
  step = times.step + (times.evaluation / every if every else 0.0)
  return step * experiment.pipeline.steps_per_epoch + times.epoch_end
