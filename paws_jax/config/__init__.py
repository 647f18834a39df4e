"""Every field of a recipe, once, with its default, its unit and its range.

A recipe (`configs/*.py`) is `base()` plus its differences. `validate` checks a
resolved recipe before a device is touched; it needs neither JAX nor the data.
All sizes are global: the whole batch and the whole support set, never a
device's share.
"""

from __future__ import annotations

import dataclasses
import math

import ml_collections

from paws_jax import errors
from paws_jax.config import checks
from paws_jax.config import fields
from paws_jax.config.checkpoint import Checkpoint
from paws_jax.config.data import Data
from paws_jax.config.eval import Eval
from paws_jax.config.finetune import Finetune
from paws_jax.config.log import Log
from paws_jax.config.model import Model
from paws_jax.config.optim import Optim
from paws_jax.config.support import Support
from paws_jax.config.train import Train
from paws_jax.config.views import Views

__all__ = [
  "Checkpoint",
  "Data",
  "Eval",
  "Finetune",
  "Log",
  "Model",
  "Optim",
  "Support",
  "Train",
  "Views",
  "base",
  "validate",
]

_SECTIONS = {
  "data": Data,
  "views": Views,
  "support": Support,
  "model": Model,
  "optim": Optim,
  "train": Train,
  "eval": Eval,
  "checkpoint": Checkpoint,
  "finetune": Finetune,
  "log": Log,
}


def base() -> ml_collections.ConfigDict:
  """Returns the defaults of every field; recipes override what differs."""
  config = ml_collections.ConfigDict()
  # Drives initialisation, sample order, support draws and augmentation.
  config.seed = 0
  for name, kind in _SECTIONS.items():
    config[name] = ml_collections.ConfigDict(dataclasses.asdict(kind()))
  config.method = _method()
  return config


def _method() -> ml_collections.ConfigDict:
  config = ml_collections.ConfigDict()
  # One of methods.METHODS: paws, ropaws, simclr, suncet, supervised
  # (docs/methods.md says which when).
  config.name = "paws"
  config.temperature = 0.1
  config.sharpen_temperature = 0.25
  # Maximise the entropy of the mean sharpened prediction, or draw it to another
  # prior than the uniform one.
  config.me_max = True
  # Share of each class among unlabelled images, where me_max draws to and its
  # KL is reported from: "uniform", "labels" (as often as among labelled images)
  # or "given": prior_probs, a number for each class of the data, in order. The
  # classes of a step have theirs, scaled to a sum of 1.
  config.prior = "uniform"
  config.prior_probs = ()
  # Weight of the cross-entropy of support labels, each predicted by the other
  # supports (the paper's appendix E); 0 leaves it out, as in the main recipe.
  # In method suncet it is that of the SuNCEt term, 1 in the paper.
  config.support_loss_weight = 0.0
  # Weight of the mean entropy of predictions: instead of sharpening, that is
  # with sharpen_temperature = 1, or beside it (appendix E).
  config.entropy_loss_weight = 0.0
  # Report NT-Xent, SuNCEt, agreement of views, classes used, similarity to
  # supports and feature rank at every step; they train nothing.
  config.health_metrics = True
  # simclr, suncet: no gradient through the keys of NT-Xent, as in the public
  # code.
  config.detached_keys = False
  # suncet: steps, or epochs, after which labels no longer count; one of the two
  # is 0. Both 0: they count to the end.
  config.supervised_until = 0
  config.supervised_until_epochs = 0.0
  # ropaws: what all supports together weigh in the density over what all
  # unlabelled images do, ...
  config.label_mass_ratio = 5.0
  # ... temperature and exponent of the probability of being of a known class
  # (3 for ImageNet, 0.1 for CIFAR-10), ...
  config.in_domain_temperature = 3.0
  config.in_domain_power = 1.0
  # ... and iterations of the fixed point, each with an all-gather.
  config.num_iterations = 20
  # ropaws: label_mass_ratio as the published trainer has it, of the unlabelled
  # images of one of its devices and of the supports of one class.
  config.as_released = False
  config.released_batch_size = 64

  return config


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks every field of a resolved recipe by itself and against the others.

  What needs the data or the devices is checked where those are at hand.

  Args:
    config: the recipe, with overrides.

  Raises:
    TypeError: an unknown field of a section, by name.
    ValueError: naming the field, its value, and what it may be.
  """
  _check_value("seed", config.seed)
  for name, value in config.method.items():
    _check_value(f"method.{name}", value)
  for name, kind in _SECTIONS.items():
    fields.check(fields.build(kind, dict(config[name]), name), name)
  checks.check_together(config)


def _check_value(name, value):
  numbers = value if isinstance(value, (tuple, list)) else (value,)
  for number in numbers:
    if isinstance(number, float) and not math.isfinite(number):
      raise errors.InputError(f"{name} is {value}: it must be finite.")
  wanted, holds = checks.FIELDS.get(name, checks.ANYTHING)
  if not holds(value):
    raise errors.InputError(f"{name} is {value!r}: it must be {wanted}.")
