"""When a run evaluates and saves, and whether calls of steps end there."""

from __future__ import annotations

import typing

from paws_jax import errors
from paws_jax.training import loop

if typing.TYPE_CHECKING:
  from paws_jax.training import experiment as experiment_lib


def create(experiment: experiment_lib.Experiment) -> loop.Intervals:
  """Returns when a run evaluates, saves, and lets its method act."""
  steps_per_epoch = experiment.epoch_steps
  within: tuple[int, ...] = ()
  if steps_per_epoch:
    within = experiment.trainer.method.steps_within_epoch(steps_per_epoch)
  return loop.Intervals(
    per_call=experiment.train.steps_per_call,
    evaluate=experiment.eval.every_steps,
    save=experiment.checkpoint.every_steps,
    epoch=steps_per_epoch,
    within_epoch=within,
  )


def check(experiment: experiment_lib.Experiment) -> None:
  """Refuses intervals that are no multiple of the steps per call.

  Raises:
    errors.InputError: naming the first of them.
  """
  every = create(experiment)
  acts = "the steps of an epoch after which the method acts"
  named = [
    (
      "the total number of steps",
      experiment.total_steps if experiment.train.epochs else 0,
    ),
    ("eval.every_steps", every.evaluate),
    ("checkpoint.every_steps", every.save),
    *((acts, step) for step in (*every.within_epoch, every.epoch)),
  ]
  for name, steps in named:
    if steps % every.per_call:
      raise errors.InputError(
        f"train.steps_per_call is {every.per_call}, which does not divide "
        f"{name}, {steps} ({experiment.train.epochs} epochs of "
        f"{experiment.pipeline.steps_per_epoch} steps in all): change one of "
        "the two."
      )
