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
}

ANYTHING: _Rule = ("", lambda _: True)

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
