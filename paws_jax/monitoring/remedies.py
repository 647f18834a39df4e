"""Remedies of the health rules: changes of the recipe that may help.

A remedy names no field that the method does not have, and none that already
has the proposed value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from typing import Any

from paws_jax import config as config_lib

if TYPE_CHECKING:
  from paws_jax.monitoring import rules

# Values of the paper.
_TEMPERATURE, _SHARPEN = 0.1, 0.25
TRAIN_LONGER = "raise train.epochs (in a new --workdir)"


def collapse(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may prevent equal embeddings and equal labels."""
  del now
  method, changes = facts.recipe.method, []
  if not getattr(method, "me_max", True):
    changes.append("set method.me_max to True")
  if getattr(method, "sharpen_temperature", 0) > _SHARPEN:
    changes.append(f"set method.sharpen_temperature to {_SHARPEN:g}")
  changes.append("lower optim.peak_lr or raise optim.warmup_epochs")
  text = _sentence(", ".join(changes))
  return f"{text} Start a new run: a collapsed encoder seldom recovers."


def saturation(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may leave something to learn."""
  if now.get("view_agreement", 1.0) < facts.contradicting:
    value = facts.recipe.method.temperature
    known = f" (it is {value:g}; {_TEMPERATURE:g} in the paper)"
    return f"Raise method.temperature{known}."
  crops = facts.recipe.views.crops
  harder = "make the views harder"
  if crops:
    harder += f" (lower views.{next(iter(crops))}.scale)"
  return _sentence(f"{harder}, or train for fewer epochs")


def unused(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may bring back unused classes."""
  del now
  # The fields depend on the method.
  method: Any = facts.recipe.method
  if not hasattr(method, "me_max"):
    return "Check whether classes are missing from the unlabelled images."
  if not method.me_max:
    return (
      "Set method.me_max to True, unless classes are missing from the data; "
      "if they are very unbalanced, set method.prior, too."
    )
  if method.prior == "uniform":
    return (
      "If classes are missing from the unlabelled images or much rarer than "
      "others, set method.prior to 'labels' or 'given', or method.me_max to "
      "False."
    )
  return (
    "Check that method.prior suits the unlabelled images, or set method.me_max "
    "to False."
  )


def label_shortage(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may help where accuracy stays behind confidence."""
  text = "Label more images, first those that --task=report suggests"
  if support_loss_helps(facts.recipe):
    text += ", or set method.support_loss_weight to 1"
  if now.get("improving"):
    text += f"; accuracy still rises: a longer run may help, {TRAIN_LONGER}"
  return f"{text}."


def dead(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may set the weights in motion."""
  del facts
  if now.get("grad_norm") == 0:
    return (
      "A learning rate does not help without a gradient: raise "
      "method.temperature, and check that the images differ."
    )
  return (
    "Raise optim.start_lr and optim.peak_lr; the recipes in configs/ have "
    "values for each optimizer."
  )


def overconfident(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may slow down an encoder that learns its first guesses."""
  del now
  method, optim = facts.recipe.method, facts.recipe.optim
  text = "Raise method.temperature"
  if getattr(method, "sharpen_temperature", 1) < 1:
    text += " or method.sharpen_temperature"
  lower = "lower optim.start_lr and " if optim.start_lr else ""
  return f"{text}, or {lower}raise optim.warmup_epochs."


def far(now: Mapping[str, float], facts: rules.Facts) -> str:
  """Returns what may help where unlabelled images resemble no labelled one."""
  del now
  text = (
    "Check whether the unlabelled images show the labelled classes at all. "
    "Label some of those that differ, or remove those of no class"
  )
  if facts.recipe.method.in_domain_temperature is None:
    text += "; docs/methods.md names a method that gives them less weight"
  return f"{text}."


def below_pixels(recipe: config_lib.Recipe, *, improving: bool | None) -> str:
  """Returns what may help an encoder that is worse than no encoder.

  Args:
    recipe: of the run.
    improving: whether accuracy still rose at the end; None: it was not
      measured often enough.
  """
  changes = []
  if improving:
    changes.append(
      f"train longer, since accuracy was still rising: {TRAIN_LONGER}"
    )
  elif improving is None:
    changes.append(
      f"train longer: {TRAIN_LONGER}, with an eval.every_steps of a tenth of "
      "the run, to see whether accuracy rises"
    )
  changes.append(
    "check in views.png of --task=doctor that crops still show the class"
  )
  if support_loss_helps(recipe):
    changes.append("set method.support_loss_weight to 1")
  if not recipe.model.init_from:
    changes.append("start from pre-trained weights (model.init_from)")
  changes.append("label more images")
  return _sentence("; ".join(changes))


def support_loss_helps(recipe: config_lib.Recipe) -> bool:
  """Whether a loss of the labels exists, can be used, and is not in force."""
  support = recipe.support
  in_class = support.images_per_class * support.num_views
  weight = getattr(recipe.method, "support_loss_weight", 1.0)
  return weight < 1 and in_class > 1


def _sentence(text: str) -> str:
  return f"{text[0].upper()}{text[1:]}."
