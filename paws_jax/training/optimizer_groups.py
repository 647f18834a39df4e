"""Groups of parameters with optimizers of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import optax

from paws_jax import config as config_lib
from paws_jax import optim
from paws_jax.methods import base


def create(
  optimizer: optax.GradientTransformation,
  method: base.Method,
  section: config_lib.Optim,
) -> optax.GradientTransformation:
  """Gives each group of a method's `param_labels` its optimizer.

  A method without groups keeps the optimizer, and its checkpoints their tree.
  The parameters of a frozen trunk do not change.

  Args:
    optimizer: of the recipe.
    method: its method.
    section: its section `optim`.
  """
  frozen = method.encoder is not None and method.encoder.freeze_trunk
  has_groups = type(method).param_labels is not base.Method.param_labels
  if not has_groups and not frozen:
    return optimizer
  peak = section.peak_lr
  constant, _ = optim.create(
    dataclasses.replace(
      section, start_lr=peak, final_lr=peak, warmup_epochs=0.0
    ),
    steps_per_epoch=1,
    total_steps=1,
  )
  groups = {
    "default": optimizer,
    "constant_lr": constant,
    "frozen": optax.set_to_zero(),
    "delayed": optim.start_at(optimizer, method.delay_steps),
  }

  def labels(params: Any) -> Any:
    given = method.param_labels(params)
    if given is None:
      given = dict.fromkeys(params, "default")
    return {**given, "trunk": "frozen"} if frozen else given

  return optax.partition(groups, labels)
