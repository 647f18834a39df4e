"""What the fields of a recipe may be: each by itself, and together."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from paws_jax import errors

# What is allowed, in words, and whether a value is.
_Rule = tuple[str, Callable[[Any], bool]]

_POSITIVE: _Rule = ("greater than 0", lambda x: x > 0)
_NOT_NEGATIVE: _Rule = ("at least 0", lambda x: x >= 0)
_AT_LEAST_ONE: _Rule = ("at least 1", lambda x: x >= 1)
_PROBABILITY: _Rule = ("in [0, 1]", lambda x: 0 <= x <= 1)
_FRACTION: _Rule = ("in [0, 1)", lambda x: 0 <= x < 1)
_SEED: _Rule = ("in [0, 2147483647]", lambda x: 0 <= x < 2**31)
_SCALE: _Rule = (
  "two area fractions, 0 < low <= high <= 1",
  lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1,
)
_RANGE: _Rule = (
  "two numbers, 0 < low <= high",
  lambda x: len(x) == 2 and 0 < x[0] <= x[1],
)
_POSITIVES: _Rule = (
  "numbers greater than 0",
  lambda x: len(x) > 0 and all(v > 0 for v in x),
)


def _one_of(*names: str) -> _Rule:
  return f"one of {', '.join(names)}", lambda x: x in names


# What a field may be. Names of encoders, methods and optimisers are checked
# where they are defined.
FIELDS: Mapping[str, _Rule] = {
  "seed": _SEED,
  "data.source": _one_of("digits", "idx", "tfds", "folder"),
  "data.pipeline": _one_of("memory", "host"),
  "data.image_size": _NOT_NEGATIVE,
  "data.labels_per_class": _NOT_NEGATIVE,
  "data.labels_fraction": _PROBABILITY,
  "data.split_seed": _SEED,
  "data.canvas_size": _AT_LEAST_ONE,
  "data.on_bad_image": _one_of("error", "skip"),
  # Pillow refuses larger images whatever we say.
  "data.max_pixels": (
    "in [1, 178956970]",
    lambda x: 1 <= x <= 178_956_970,
  ),
  "data.support_cache_mb": _NOT_NEGATIVE,
  "views.num_large": _AT_LEAST_ONE,
  "views.large_size": _AT_LEAST_ONE,
  "views.large_scale": _SCALE,
  "views.num_small": _NOT_NEGATIVE,
  "views.small_size": _AT_LEAST_ONE,
  "views.small_scale": _SCALE,
  "views.aspect_ratio": _RANGE,
  "views.flip_probability": _PROBABILITY,
  "views.rotation_degrees": ("in [0, 180]", lambda x: 0 <= x <= 180),
  "views.jitter_strength": _NOT_NEGATIVE,
  "views.jitter_probability": _PROBABILITY,
  "views.grey_probability": _PROBABILITY,
  "views.blur_probability": _PROBABILITY,
  "views.blur_radius": _RANGE,
  "views.solarize_probability": _PROBABILITY,
  "views.equalize_probability": _PROBABILITY,
  "views.mean": ("one number per channel", lambda x: len(x) > 0),
  "views.std": _POSITIVES,
  "views.eval_resize": _NOT_NEGATIVE,
  "support.classes_per_step": (
    "0 (all classes) or at least 2",
    lambda x: x == 0 or x >= 2,
  ),
  "support.images_per_class": _AT_LEAST_ONE,
  "support.num_views": _AT_LEAST_ONE,
  "support.label_smoothing": _FRACTION,
  "model.width": _AT_LEAST_ONE,
  "model.projection_hidden_dim": _NOT_NEGATIVE,
  "model.output_dim": _AT_LEAST_ONE,
  "model.bn_momentum": _FRACTION,
  "model.final_bn_momentum": _FRACTION,
  "model.dtype": _one_of("auto", "float32", "bfloat16"),
  "method.temperature": _POSITIVE,
  "method.sharpen_temperature": _POSITIVE,
  "method.prior": _one_of("uniform", "labels", "given"),
  "method.prior_probs": (
    "numbers greater than 0",
    lambda x: all(v > 0 for v in x),
  ),
  "method.support_loss_weight": _NOT_NEGATIVE,
  "method.entropy_loss_weight": _NOT_NEGATIVE,
  "method.supervised_until": _NOT_NEGATIVE,
  "method.supervised_until_epochs": _NOT_NEGATIVE,
  "method.label_mass_ratio": _POSITIVE,
  "method.in_domain_temperature": _POSITIVE,
  "method.in_domain_power": _NOT_NEGATIVE,
  "method.num_iterations": _NOT_NEGATIVE,
  "method.released_batch_size": _AT_LEAST_ONE,
  "optim.start_lr": _NOT_NEGATIVE,
  "optim.peak_lr": _POSITIVE,
  "optim.final_lr": _NOT_NEGATIVE,
  "optim.warmup_epochs": _NOT_NEGATIVE,
  "optim.weight_decay": _NOT_NEGATIVE,
  "optim.momentum": _FRACTION,
  "optim.b2": _FRACTION,
  "optim.trust_coefficient": _POSITIVE,
  "train.batch_size": _AT_LEAST_ONE,
  "train.epochs": _AT_LEAST_ONE,
  "train.steps_per_call": _AT_LEAST_ONE,
  "train.remat": _one_of("none", "dots", "all"),
  "train.bn_group_size": _NOT_NEGATIVE,
  "eval.every_steps": _NOT_NEGATIVE,
  "eval.batch_size": _AT_LEAST_ONE,
  "checkpoint.every_steps": _NOT_NEGATIVE,
  "checkpoint.keep_every_steps": _NOT_NEGATIVE,
  "finetune.protocol": _one_of("linear_head", "suncet"),
  "finetune.learning_rates": (
    "different numbers greater than 0",
    lambda x: _POSITIVES[1](x) and len(set(x)) == len(x),
  ),
  "finetune.epochs": _AT_LEAST_ONE,
  "finetune.batch_size": _AT_LEAST_ONE,
  "finetune.crop_scale": _SCALE,
  "finetune.aspect_ratio": _RANGE,
  "finetune.holdout": _one_of("stratified", "paper", "none"),
  "finetune.holdout_fraction": ("in (0, 1)", lambda x: 0 < x < 1),
  "log.every_steps": _AT_LEAST_ONE,
}

ANYTHING: _Rule = ("", lambda _: True)

# Which pipelines serve a source.
_PIPELINES = {
  "digits": ("memory",),
  "idx": ("memory",),
  "tfds": ("memory", "host"),
  "folder": ("host",),
}


def _check_views(section: Mapping[str, Any]) -> None:
  """Refuses small crops that are not small."""
  small, large = section["small_size"], section["large_size"]
  if section["num_small"] and small > large:
    raise errors.InputError(
      f"views.num_small is {section['num_small']} and views.small_size is "
      f"{small}, but large crops have {large} pixels (views.large_size): make "
      "small ones no larger."
    )


def _check_data(section: Mapping[str, Any]) -> None:
  """Refuses fields of section `data` that contradict each other."""
  source, pipeline = section["source"], section["pipeline"]
  if pipeline not in _PIPELINES[source]:
    raise errors.InputError(
      f"data.pipeline is {pipeline!r} but data.source is {source!r}: it must "
      f"be {' or '.join(map(repr, _PIPELINES[source]))} for this source."
    )
  if section["labels_per_class"] and section["labels_fraction"]:
    raise errors.InputError(
      f"data.labels_per_class is {section['labels_per_class']} and "
      f"data.labels_fraction is {section['labels_fraction']:g}: set one of "
      "them to 0."
    )
  for name in ("labels_per_class", "labels_fraction"):
    if section["labels_file"] and section[name]:
      raise errors.InputError(
        f"data.labels_file is {section['labels_file']!r} but data.{name} is "
        f"{section[name]:g}: the file tells all labelled images; set {name} to "
        "0, or labels_file to ''."
      )
  if section["tfds_name"] and source != "tfds":
    raise errors.InputError(
      f"data.tfds_name is {section['tfds_name']!r} but data.source is "
      f"{source!r}: only 'tfds' reads it; set it to ''."
    )
  if pipeline == "host" and section["image_size"]:
    raise errors.InputError(
      f"data.image_size is {section['image_size']} but data.pipeline is "
      "'host': leave it 0; views.large_size and data.canvas_size say what "
      "images become."
    )
  for name in ("manifest", "unlabelled_dir", "test_dir"):
    if section[name] and source != "folder":
      raise errors.InputError(
        f"data.{name} is {section[name]!r} but data.source is {source!r}: only "
        "'folder' reads it."
      )
    if section[name] and section["manifest"] and name != "manifest":
      raise errors.InputError(
        f"data.{name} is {section[name]!r} but data.manifest is given: the "
        "manifest lists all images; leave the other one empty."
      )


def _check_finetune(section: Mapping[str, Any]) -> None:
  """Refuses fields of section `finetune` that contradict each other."""
  holdout, file = section["holdout"], section["holdout_file"]
  rates = section["learning_rates"]
  if holdout == "none" and len(rates) > 1:
    raise errors.InputError(
      f"finetune.holdout is 'none' but finetune.learning_rates has {len(rates)}"
      f" values, {rates}: without a hold-out nothing can be chosen; give one "
      "learning rate, e.g. --config.finetune.learning_rates='(0.02,)', or a "
      "hold-out."
    )
  if (holdout == "paper") != bool(file):
    raise errors.InputError(
      f"finetune.holdout is {holdout!r} but finetune.holdout_file is {file!r}: "
      "'paper' needs a file that lists labelled training images beside those "
      "of the split, and only 'paper' reads it."
    )


_WITHOUT_PREDICTIONS = ("simclr", "suncet", "supervised")
# Switches of section `method`, the methods that would ignore them, and why.
_IGNORED = {
  "support_loss_weight": (("simclr",), "it takes no labelled images"),
  "entropy_loss_weight": (
    _WITHOUT_PREDICTIONS,
    "it predicts no classes of unlabelled images",
  ),
  "detached_keys": (
    ("paws", "ropaws", "supervised"),
    "it has no NT-Xent in its loss",
  ),
  "supervised_until": (
    ("paws", "ropaws", "simclr", "supervised"),
    "only suncet has a term that ends",
  ),
  "supervised_until_epochs": (
    ("paws", "ropaws", "simclr", "supervised"),
    "only suncet has a term that ends",
  ),
  "as_released": (
    ("paws", "simclr", "suncet", "supervised"),
    "only ropaws weighs labels against unlabelled images",
  ),
}
# How far a given prior's sum may be from 1: rounded numbers are meant.
_PRIOR_TOLERANCE = 1e-4


def _check_method(
  section: Mapping[str, Any], support: Mapping[str, Any]
) -> None:
  """Refuses switches that contradict the method, each other or the supports."""
  name, weight = section["name"], section["support_loss_weight"]
  for switch, (methods, reason) in _IGNORED.items():
    if section[switch] and name in methods:
      raise errors.InputError(
        f"method.{switch} is {section[switch]} but method.name is {name!r}: "
        f"{reason}. Set it to {type(section[switch])()}, or use another method."
      )
  if name == "suncet" and not weight:
    raise errors.InputError(
      "method.support_loss_weight is 0 but method.name is 'suncet', whose "
      "labels then do nothing: set it to 1, or use 'simclr'."
    )
  steps, epochs = (
    section["supervised_until"],
    section["supervised_until_epochs"],
  )
  if steps and epochs:
    raise errors.InputError(
      f"method.supervised_until is {steps} and method.supervised_until_epochs "
      f"is {epochs:g}, but labels stop to count once: set one of them to 0."
    )
  rows = support["images_per_class"] * support["num_views"]
  if rows < 2 and (weight or name == "supervised"):
    raise errors.InputError(
      f"support.images_per_class is {support['images_per_class']} and "
      f"support.num_views {support['num_views']}, but method.name is {name!r} "
      f"with method.support_loss_weight = {weight:g}: a support is then "
      "predicted by the others of its class, of which there must be at least "
      "2; raise images_per_class."
    )
  _check_prior(name, section["prior"], section["prior_probs"])


def _check_prior(name: str, prior: str, probs: tuple[float, ...]) -> None:
  """Refuses a prior that is not used, not given, or none."""
  if prior != "uniform" and name in _WITHOUT_PREDICTIONS:
    raise errors.InputError(
      f"method.prior is {prior!r} but method.name is {name!r}: it predicts no "
      "classes of unlabelled images. Set it to 'uniform', or use another "
      "method."
    )
  if (prior == "given") != bool(probs):
    raise errors.InputError(
      f"method.prior is {prior!r} but method.prior_probs has {len(probs)} "
      "numbers: 'given' needs one for each class, and only 'given' reads them."
    )
  if probs and abs(sum(probs) - 1) > _PRIOR_TOLERANCE:
    raise errors.InputError(
      f"method.prior_probs add up to {sum(probs):g}: make them add up to 1."
    )


def check_together(config: Mapping[str, Mapping[str, Any]]) -> None:
  """Checks fields against each other.

  Args:
    config: a recipe whose fields are all allowed by themselves.

  Raises:
    ValueError: naming the fields, their values, and what to change.
  """
  _check_views(config["views"])
  _check_data(config["data"])
  _check_finetune(config["finetune"])
  _check_method(config["method"], config["support"])
  views = config["views"]
  if config["data"]["pipeline"] == "host" and not views["eval_resize"]:
    raise errors.InputError(
      "views.eval_resize is 0 but data.pipeline is 'host', where images differ "
      f"in size: set it to at least views.large_size, {views['large_size']}."
    )
  if config["optim"]["warmup_epochs"] > config["train"]["epochs"]:
    raise errors.InputError(
      f"optim.warmup_epochs is {config['optim']['warmup_epochs']:g} but "
      f"train.epochs is {config['train']['epochs']}: lower the warm-up or "
      "train longer."
    )
  model = config["model"]
  if model["freeze_bn"] and not model["init_from"]:
    raise errors.InputError(
      "model.freeze_bn is True but model.init_from is '': random weights have "
      "no running statistics worth keeping; name weights to start from, or set "
      "freeze_bn to False."
    )
  every = config["checkpoint"]["every_steps"]
  keep = config["checkpoint"]["keep_every_steps"]
  if keep and (not every or keep % every):
    raise errors.InputError(
      f"checkpoint.keep_every_steps is {keep} but checkpoint.every_steps is "
      f"{every}: make the former a multiple of the latter."
    )
  if len(config["views"]["mean"]) != len(config["views"]["std"]):
    raise errors.InputError(
      f"views.mean has {len(config['views']['mean'])} values and views.std "
      f"{len(config['views']['std'])}: give one of each per channel."
    )
