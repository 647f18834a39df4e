"""Recipes of the methods that are compared, and what a step of them costs.

All share one recipe: data, crops, supports, encoder, optimiser. A method
changes section `method` and the number of epochs: as many as the budget allows.
"""

from __future__ import annotations

import dataclasses

import ml_collections

from benchmarks.compare import data as comparison_data
from paws_jax import config as config_lib
from paws_jax.training import experiment


@dataclasses.dataclass(frozen=True)
class Method:
  """What is compared.

  Attributes:
    label: for readers.
    name: `method.name`.
    takes_unlabelled: whether a step encodes unlabelled images.
    takes_labelled: whether it encodes labelled ones.
    is_fine_tuned: whether a part of the budget goes to fine-tuning.
  """

  label: str
  name: str
  takes_unlabelled: bool = True
  takes_labelled: bool = True
  is_fine_tuned: bool = False


METHODS = {
  "supervised": Method("supervised only", "supervised", takes_unlabelled=False),
  "simclr": Method(
    "SimCLR + fine-tune", "simclr", takes_labelled=False, is_fine_tuned=True
  ),
  "suncet": Method("SimCLR + SuNCEt + fine-tune", "suncet", is_fine_tuned=True),
  "paws": Method("PAWS", "paws"),
  "ropaws": Method("RoPAWS", "ropaws"),
}


@dataclasses.dataclass(frozen=True)
class Budget:
  """What every cell may cost.

  Attributes:
    views: crops that pass through the encoder, forwards and backwards.
    finetune_share: of them, for methods that are fine-tuned.
    finetune_lr: learning rate of fine-tuning; there are too few labels to
      choose it on.
  """

  views: int
  finetune_share: float
  finetune_lr: float


def recipe(
  base: ml_collections.ConfigDict,
  method: Method,
  budget: Budget,
  data: comparison_data.Data,
) -> ml_collections.ConfigDict:
  """The base recipe with another method, as long as the budget lasts.

  Raises:
    ValueError: a budget of less than an epoch, or what `config.resolve` finds.
  """
  config = base.copy_and_resolve_references()
  config.method = config_lib.method_section(method.name, config.method)
  if method.name == "suncet":
    config.support.label_smoothing = 0.0
  # They train nothing, and cost time.
  if "health_metrics" in config.method:
    config.method.health_metrics = False
  config.support.with_replacement = True
  classes = config.support.classes_per_step or data.num_classes
  config.support.classes_per_step = min(classes, data.num_classes)
  config.train.steps_per_call = 1
  config.eval.every_steps = 0
  config.checkpoint.every_steps = 0
  config.checkpoint.keep_every_steps = 0
  share = budget.finetune_share if method.is_fine_tuned else 0.0
  per_epoch = views_per_step(config, method) * (
    data.num_images // config.train.batch_size
  )
  config.train.epochs = int(budget.views * (1 - share) / max(per_epoch, 1))
  if not config.train.epochs:
    raise ValueError(
      f"--views is {budget.views}, of which {method.label} has "
      f"{budget.views * (1 - share):.0f} to pre-train, but one epoch takes "
      f"{per_epoch}: raise --views."
    )
  if method.is_fine_tuned:
    _check_fine_tuning(config, budget)
  warmup = min(config.optim.warmup_epochs, config.train.epochs)
  config.optim.warmup_epochs = warmup
  config_lib.resolve(config)
  return config


def _check_fine_tuning(
  config: ml_collections.ConfigDict, budget: Budget
) -> None:
  """Refuses a share of less than an epoch, with as many labels as may be."""
  support = config.support
  images = max(support.images_per_class, comparison_data.MOST_LABELS)
  needed = support.classes_per_step * images * support.num_views
  share = budget.views * budget.finetune_share
  if share < needed:
    raise ValueError(
      f"--finetune_share is {budget.finetune_share:g} of --views, "
      f"{budget.views}: {share:.0f} views, but an epoch may take {needed}; "
      "raise one of them."
    )


def check_views(config: ml_collections.ConfigDict, dataset_name: str) -> None:
  """Has the method refuse crops that it cannot use; asks JAX for its devices.

  Args:
    config: of `recipe`.
    dataset_name: for messages.

  Raises:
    ValueError: as `experiment.create`.
  """
  num_classes = config.support.classes_per_step
  recipe = config_lib.resolve(config)
  method, _, _ = experiment.create_method(
    recipe, dataset_name=dataset_name, num_classes=num_classes
  )
  method.views(recipe.views)


def images_per_step(config: ml_collections.ConfigDict, method: Method) -> int:
  """Images that a step takes, unlabelled and labelled ones."""
  support = config.support
  labelled = support.classes_per_step * support.images_per_class
  return (
    method.takes_unlabelled * config.train.batch_size
    + method.takes_labelled * labelled
  )


def views_per_step(config: ml_collections.ConfigDict, method: Method) -> int:
  """Crops that a step passes through the encoder, those it learns from."""
  crops = sum(
    spec.count for spec in config_lib.build_views(config.views).crops.values()
  )
  support = config.support
  labelled = support.classes_per_step * support.images_per_class
  return (
    method.takes_unlabelled * config.train.batch_size * crops
    + method.takes_labelled * labelled * support.num_views
  )
