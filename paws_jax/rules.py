"""What the fields of a recipe may be: each by itself, and together."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

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
  "method.support_loss_weight": _NOT_NEGATIVE,
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


def _check_data(section: Mapping[str, Any]) -> None:
  """Refuses fields of section `data` that contradict each other."""
  source, pipeline = section["source"], section["pipeline"]
  if pipeline not in _PIPELINES[source]:
    raise ValueError(
      f"data.pipeline is {pipeline!r} but data.source is {source!r}: it must "
      f"be {' or '.join(map(repr, _PIPELINES[source]))} for this source."
    )
  if section["labels_per_class"] and section["labels_fraction"]:
    raise ValueError(
      f"data.labels_per_class is {section['labels_per_class']} and "
      f"data.labels_fraction is {section['labels_fraction']:g}: set one of "
      "them to 0."
    )
  for name in ("labels_per_class", "labels_fraction"):
    if section["labels_file"] and section[name]:
      raise ValueError(
        f"data.labels_file is {section['labels_file']!r} but data.{name} is "
        f"{section[name]:g}: the file tells all labelled images; set {name} to "
        "0, or labels_file to ''."
      )
  if section["tfds_name"] and source != "tfds":
    raise ValueError(
      f"data.tfds_name is {section['tfds_name']!r} but data.source is "
      f"{source!r}: only 'tfds' reads it; set it to ''."
    )
  if pipeline == "host" and section["image_size"]:
    raise ValueError(
      f"data.image_size is {section['image_size']} but data.pipeline is "
      "'host': leave it 0; views.large_size and data.canvas_size say what "
      "images become."
    )
  for name in ("manifest", "unlabelled_dir", "test_dir"):
    if section[name] and source != "folder":
      raise ValueError(
        f"data.{name} is {section[name]!r} but data.source is {source!r}: only "
        "'folder' reads it."
      )
    if section[name] and section["manifest"] and name != "manifest":
      raise ValueError(
        f"data.{name} is {section[name]!r} but data.manifest is given: the "
        "manifest lists all images; leave the other one empty."
      )


def check_together(config: Mapping[str, Mapping[str, Any]]) -> None:
  """Checks fields against each other.

  Args:
    config: a recipe whose fields are all allowed by themselves.

  Raises:
    ValueError: naming the fields, their values, and what to change.
  """
  _check_data(config["data"])
  views = config["views"]
  if config["data"]["pipeline"] == "host" and not views["eval_resize"]:
    raise ValueError(
      "views.eval_resize is 0 but data.pipeline is 'host', where images differ "
      f"in size: set it to at least views.large_size, {views['large_size']}."
    )
  if config["optim"]["warmup_epochs"] > config["train"]["epochs"]:
    raise ValueError(
      f"optim.warmup_epochs is {config['optim']['warmup_epochs']:g} but "
      f"train.epochs is {config['train']['epochs']}: lower the warm-up or "
      "train longer."
    )
  every = config["checkpoint"]["every_steps"]
  keep = config["checkpoint"]["keep_every_steps"]
  if keep and (not every or keep % every):
    raise ValueError(
      f"checkpoint.keep_every_steps is {keep} but checkpoint.every_steps is "
      f"{every}: make the former a multiple of the latter."
    )
  if len(config["views"]["mean"]) != len(config["views"]["std"]):
    raise ValueError(
      f"views.mean has {len(config['views']['mean'])} values and views.std "
      f"{len(config['views']['std'])}: give one of each per channel."
    )
