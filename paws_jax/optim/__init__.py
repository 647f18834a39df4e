"""The optimizer and the learning-rate schedule of a recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import optax

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import fields
from paws_jax.optim import optimizers
from paws_jax.optim import schedules

LARS_EPSILON = optimizers.LARS_EPSILON
OPTIMIZERS = ("lars", "sgd", "adamw")

delayed_cosine = schedules.delayed_cosine
epoch_drops = schedules.epoch_drops
is_kernel = optimizers.is_kernel
lars = optimizers.lars
scale_by_lars = optimizers.scale_by_lars
sgd = optimizers.sgd
start_at = optimizers.start_at
trust_ratios = optimizers.trust_ratios
warmup_cosine = schedules.warmup_cosine
warmup_part_of_cosine = schedules.warmup_part_of_cosine


def create(
  section: config_lib.Optim | Mapping[str, Any],
  *,
  steps_per_epoch: int,
  total_steps: int,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Builds the optimizer and the schedule of a recipe.

  Args:
    section: the recipe's `optim`.
    steps_per_epoch: turns `warmup_epochs` into steps.
    total_steps: length of the schedule.

  Returns:
    The optax transformation, and its schedule for reporting.

  Raises:
    TypeError: for an unknown field, by name.
    InputError: for an unknown optimizer.
  """
  config = fields.build(config_lib.Optim, section, "optim")
  schedule = _schedule(
    config,
    warmup_steps=round(config.warmup_epochs * steps_per_epoch),
    total_steps=total_steps,
  )
  shared = {
    "momentum": config.momentum,
    "nesterov": config.nesterov,
    "mask": _decayed(config),
    "lr_in_momentum": config.lr_in_momentum,
  }
  if config.name == "lars":
    optimizer = optimizers.lars(
      schedule,
      weight_decay=config.weight_decay,
      trust_coefficient=config.trust_coefficient,
      norm=config.lars_norm,
      **shared,
    )
  elif config.name == "sgd":
    optimizer = optimizers.sgd(
      schedule, weight_decay=config.weight_decay, **shared
    )
  elif config.name == "adamw":
    optimizer = optax.adamw(
      schedule,
      b1=config.momentum,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=_decayed(config),
      nesterov=config.nesterov,
    )
  else:
    raise errors.InputError(
      f"optim.name is {config.name!r}; known are {', '.join(OPTIMIZERS)}."
    )
  return optimizer, schedule


def _schedule(
  config: config_lib.Optim, *, warmup_steps: int, total_steps: int
) -> optax.Schedule:
  """Builds the schedule that `optim.schedule` names."""
  shared: dict[str, Any] = {
    "start_lr": config.start_lr,
    "peak_lr": config.peak_lr,
    "warmup_steps": warmup_steps,
    "total_steps": total_steps,
  }
  if config.schedule == "cosine":
    return schedules.warmup_cosine(**shared, final_lr=config.final_lr)
  share = 7 / 16 if config.schedule == "cosine_7_16" else 0.0
  return schedules.warmup_part_of_cosine(**shared, share=share)


def observer(
  section: config_lib.Optim | Mapping[str, Any],
) -> Callable[[Any, Any], dict[str, jax.Array]] | None:
  """Returns a function for more metrics of the optimizer, if it has any.

  Args:
    section: the recipe's `optim`.

  Returns:
    A function of (gradients, params) that returns scalar metrics: the trust
    ratios of LARS. None for other optimizers.

  Raises:
    TypeError: for an unknown field, by name.
  """
  config = fields.build(config_lib.Optim, section, "optim")
  if config.name != "lars":
    return None
  return functools.partial(
    optimizers.trust_ratios,
    weight_decay=config.weight_decay,
    trust_coefficient=config.trust_coefficient,
    mask=_decayed(config),
    norm=config.lars_norm,
  )


def _decayed(config: config_lib.Optim) -> Callable[[Any], Any]:
  """Returns the function that marks parameters that decay acts on."""
  if config.decayed == "all":
    return optimizers.every_parameter
  return optimizers.is_kernel
