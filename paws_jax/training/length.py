"""The length of a run in steps."""

from __future__ import annotations

import math
from typing import Any

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import fields


def check(recipe: config_lib.Recipe, built: Any) -> None:
  """Checks the method of a new run against the run's length.

  Of a run that is there the length was accepted once.

  Args:
    recipe: of the run.
    built: its `experiment.Experiment`.

  Raises:
    errors.InputError: naming the fields, their values, and what to change.
  """
  if recipe.train.epochs:  # Else it is not known yet.
    recipe.method.check_length(
      batch_size=recipe.train.batch_size,
      steps_per_epoch=built.pipeline.steps_per_epoch,
      total_steps=built.total_steps,
    )


def total_steps(recipe: config_lib.Recipe, *, steps_per_epoch: int) -> int:
  """Computes the steps of a recipe, which are counted in 32 bits.

  Where the epochs that fit in `train.minutes` are not known yet, they are as
  few as there can be.

  Raises:
    errors.InputError: there are too many.
  """
  epochs = recipe.train.epochs or max(1, math.ceil(recipe.optim.warmup_epochs))
  total = epochs * steps_per_epoch
  if total > fields.LARGEST_INTEGER:
    raise errors.InputError(
      f"{epochs} epochs of {steps_per_epoch} steps are {total} steps: a run "
      f"has at most {fields.LARGEST_INTEGER}; lower train.epochs (of "
      "fine-tuning: finetune.epochs)."
    )
  return total
