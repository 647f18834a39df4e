"""Recipes of the methods that are compared, and what a step of them costs.

All share the data and the trunk of one recipe, and its fine-tuning; those
without a class head also views, supports, optimizer and batch. A method changes
section `method` and the number of epochs: as many as the budget allows. A
method with a recipe on digits of its own also has the heads of that one, and
what else belongs to the method (`own_settings`); one with a class head has all
of it but what all share.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from benchmarks.compare import data as comparison_data
from paws_jax import config as config_lib
from paws_jax import methods
from paws_jax.config import methods as config_methods
from paws_jax.config import rand_augment
from paws_jax.training import experiment

# Of the digits, for which recipes of configs/ are.
_OWN_CLASSES = 10
CONFIGS = pathlib.Path(__file__).resolve().parents[2] / "configs"


@dataclasses.dataclass(frozen=True)
class Method:
  """What is compared.

  Attributes:
    label: for readers.
    name: `method.name`.
    recipe: on digits, whose settings of method and heads it has: a file of
      configs/ and its variant; "": those of the recipe that all share.
    uses_labels: whether training does; otherwise it is the same for any labels.
    trained_crops: of an unlabelled image, those that the trained encoder sees;
      -1: all crops of the recipe.
    labelled_passes: of a labelled image, through trained encoders.
    changes: of the recipe, by field.
  """

  label: str
  name: str
  recipe: str = ""
  uses_labels: bool = True
  trained_crops: int = -1
  labelled_passes: int = 1
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def class_head(self) -> bool:
    """Whether it trains a classifier, whose recipe it has but for the data."""
    return config_methods.config_class(self.name).class_head


def _own(label: str, recipe: str, **settings: Any) -> Method:
  """A method with a recipe of its own, without labels unless it says so."""
  name, _, _ = recipe.partition(":")
  return Method(label, name, recipe, **{"uses_labels": False} | settings)


def _classifier(
  label: str, name: str, recipe: str, trained_crops: int, **settings: Any
) -> Method:
  """A method with a class head, which has views and optimizer of its own."""
  return Method(label, name, recipe, trained_crops=trained_crops, **settings)


METHODS = {
  "supervised": Method("supervised only", "supervised", trained_crops=0),
  "simclr": _own("SimCLR", "simclr:cpu"),
  "suncet": _own("SimCLR + SuNCEt", "suncet:cpu", uses_labels=True),
  "moco": _own("MoCo v2", "moco:cpu", trained_crops=1),
  "byol": _own("BYOL", "byol:cpu"),
  "simsiam": _own("SimSiam", "simsiam:cpu"),
  "swav": _own("SwAV", "swav:cpu"),
  "swav_suncet": _own("SwAV + SuNCEt", "swav_suncet:cpu", uses_labels=True),
  "msf": _own("MSF", "msf:cpu", trained_crops=1),
  "cmsf_labels": _own(
    "CMSF, labels", "cmsf:cpu_labels", uses_labels=True, trained_crops=1
  ),
  "cmsf_pseudo_labels": _own(
    "CMSF, pseudo-labels",
    "cmsf:cpu_pseudo_labels",
    uses_labels=True,
    trained_crops=1,
  ),
  "paws": Method("PAWS", "paws"),
  "ropaws": Method("RoPAWS", "ropaws"),
  "strong_supervised": _classifier(
    "supervised, strong", "strong_supervised", "supervised:cpu", 0
  ),
  "fixmatch": _classifier("FixMatch", "fixmatch", "fixmatch:cpu", 2),
  "uda": _classifier("UDA", "uda", "uda:cpu", 2),
  "mpl": _classifier("MPL", "mpl", "mpl:cpu", 3, labelled_passes=2),
  "mpl_off": _classifier(
    "MPL, no feedback",
    "mpl",
    "mpl:cpu",
    3,
    labelled_passes=2,
    changes={"method.feedback": "off"},
  ),
  "mean_teacher": _classifier(
    "Mean Teacher", "mean_teacher", "mean_teacher:cpu", 1
  ),
  "pseudo_label": _classifier(
    "Pseudo-Label", "pseudo_label", "pseudo_label:cpu", 1
  ),
}


@dataclasses.dataclass(frozen=True)
class Budget:
  """What every cell may cost.

  Attributes:
    views: crops that pass through the trained encoder, forwards and backwards.
    finetune_share: of them, for fine-tuning; 0: nothing is fine-tuned.
    finetune_lr: learning rate of fine-tuning; there are too few labels to
      choose it on.
  """

  views: int
  finetune_share: float
  finetune_lr: float


def own_settings(method: Method) -> dict[str, Any]:
  """Collects the fields that a method has of its own recipe.

  Returns:
    Values by field: those of section `method` that are not its defaults, and
    those of section `model` (the heads), groups of BatchNorm and smoothing of
    labels that differ from the quickstart's, on which these recipes are built.
  """
  if not method.recipe:
    return {}
  file = str(CONFIGS / "recipe.py")
  own = config_lib.beside(file, *method.recipe.split(":"))
  default = config_lib.beside(file, "quickstart")
  default.method = config_lib.method_section(method.name)
  own, default = (_flat(config) for config in (own, default))
  return {name: value for name, value in own.items() if value != default[name]}


def _flat(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the fields that belong to a method, by name."""
  fields = {
    f"{section}.{name}": value
    for section in ("method", "model")
    for name, value in config[section].items()
  }
  return fields | {
    "train.bn_groups": config.train.bn_groups,
    "support.label_smoothing": config.support.label_smoothing,
  }


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
  config = _of_method(base, method, data)
  if not config.train.batch_size:
    raise ValueError(
      f"{method.label} takes {_supports(config, method)} labelled images a "
      "step, more than unlabelled ones: lower support.classes_per_step (now "
      f"{config.support.classes_per_step})."
    )
  views = budget.views * (1 - budget.finetune_share)
  steps = data.num_images // config.train.batch_size
  per_epoch = views_per_step(config, method) * steps
  config.train.epochs = int(views / max(per_epoch, 1))
  if not config.train.epochs:
    raise ValueError(
      f"--views is {budget.views}, of which {method.label} has {views:.0f} to "
      f"pre-train, but one epoch takes {per_epoch}: raise --views."
    )
  if budget.finetune_share:
    _check_fine_tuning(config, budget)
  warmup = min(config.optim.warmup_epochs, config.train.epochs)
  config.optim.warmup_epochs = warmup
  config_lib.resolve(config).method.check_length(
    batch_size=config.train.batch_size,
    steps_per_epoch=steps,
    total_steps=steps * config.train.epochs,
  )
  return config


def _of_method(
  base: ml_collections.ConfigDict,
  method: Method,
  data: comparison_data.Data,
) -> ml_collections.ConfigDict:
  """Returns the base recipe with another method, before its length is set."""
  config = base.copy_and_resolve_references()
  if method.class_head:
    config = _with_class_head(config, method)
  else:
    config.method = config_lib.method_section(method.name, config.method)
    config.update_from_flattened_dict(own_settings(method))
  config.update_from_flattened_dict(dict(method.changes))
  # They train nothing, and cost time.
  if "health_metrics" in config.method:
    config.method.health_metrics = False
  config.support.with_replacement = True
  classes = config.support.classes_per_step or data.num_classes
  config.support.classes_per_step = min(classes, data.num_classes)
  if getattr(config_methods.config_class(method.name), "per_labelled", False):
    # A multiple of the labelled images of these classes.
    labelled = _supports(config, method)
    config.train.batch_size -= config.train.batch_size % labelled
  config.train.steps_per_call = 1
  config.eval.every_steps = 0
  config.checkpoint.every_steps = 0
  config.checkpoint.keep_every_steps = 0
  return config


def digest(base: ml_collections.ConfigDict, data: comparison_data.Data) -> str:
  """Hashes all that the cells of any method depend on, but their budget.

  Returns:
    Hex digits, of the recipe that all share, that of each method, how its views
    are counted, and the policies of RandAugment that recipes name.
  """
  known = {
    "base": base.to_dict(),
    "methods": {
      name: [
        dataclasses.asdict(method),
        _of_method(base, method, data).to_dict(),
      ]
      for name, method in METHODS.items()
    },
    "policies": {
      name: dataclasses.asdict(policy)
      for name, policy in rand_augment.POLICIES.items()
    },
  }
  text = json.dumps(known, sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_class_head(
  config: ml_collections.ConfigDict, method: Method
) -> ml_collections.ConfigDict:
  """The method's own recipe on the data, trunk and sizes of another one.

  Labelled images are drawn class by class, so that a step has the same shapes
  for any number of labels.
  """
  own = config_lib.beside(str(CONFIGS / "recipe.py"), *method.recipe.split(":"))
  for section in ("data", "eval", "checkpoint", "finetune", "log"):
    own[section] = config[section]
  own.seed = config.seed
  for name in ("name", "width", "init_from", "dtype"):
    own.model[name] = config.model[name]
  views = config_lib.build_views(config.views)
  own.views.mean, own.views.std = views.mean, views.std
  for name in config_lib.build_views(own.views).specs:
    own.views[name].size = views.evaluation.eval_size
  classes = config.support.classes_per_step
  own.support.classes_per_step = classes
  per_class = own.support.batch_size // (classes or _OWN_CLASSES)
  own.support.images_per_class = max(1, per_class)
  own.support.sampling, own.support.batch_size = "balanced", 0
  return own


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
  unlabelled = config.train.batch_size if method.trained_crops else 0
  return unlabelled + _supports(config, method)


def views_per_step(config: ml_collections.ConfigDict, method: Method) -> int:
  """Crops that a step passes through the trained encoder.

  Passes without a gradient do not count: through an average of the weights, as
  of Mean Teacher, and of MPL's labelled images before and after the student's
  step.
  """
  crops = method.trained_crops
  if crops < 0:
    views = config_lib.build_views(config.views)
    crops = sum(spec.count for spec in views.crops.values())
  supports = _supports(config, method) * config.support.num_views
  supports *= method.labelled_passes
  return config.train.batch_size * crops + supports


def _supports(config: ml_collections.ConfigDict, method: Method) -> int:
  """Labelled images of a step."""
  if not methods.METHODS[method.name].needs_support:
    return 0
  return config.support.classes_per_step * config.support.images_per_class
