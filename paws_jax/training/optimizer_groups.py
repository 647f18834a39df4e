"""Groups of parameters with optimizers of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
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
  """
  if type(method).param_labels is base.Method.param_labels:
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
      return jax.tree.map(lambda _: "default", params)
    return given

  return optax.partition(groups, labels)
