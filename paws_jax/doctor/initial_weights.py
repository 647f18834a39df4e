"""Findings about the weights that `model.init_from` names."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from paws_jax import config as config_lib
from paws_jax.doctor import findings
from paws_jax.training import experiment as experiment_lib
from paws_jax.weights import init_from


def check(
  report: findings.Report,
  recipe: config_lib.Recipe,
  experiment: experiment_lib.Experiment,
) -> None:
  """Reads the weights as training would, and compares mean and std.

  Args:
    report: receives the findings.
    recipe: a valid recipe.
    experiment: built from it.

  Raises:
    UserError: the weights cannot be used.
  """
  report.say(experiment.check_init_from())
  expected, source = init_from.statistics(recipe.model.init_from)
  views = recipe.views
  if expected is None:
    report.say(
      f"{source} do not say with which mean and std their images were "
      f"normalized: views.mean is {_text(views.mean)} and views.std "
      f"{_text(views.std)}"
    )
    return
  for name, wanted in zip(("mean", "std"), expected, strict=True):
    value = getattr(views, name)
    if len(value) == 1 and len(wanted) > 1:
      # The first layer is summed over the channels.
      wanted = (round(sum(wanted) / len(wanted), 6),)
    if not np.allclose(value, wanted, atol=1e-6):
      report.warning(
        f"views.{name} is {_text(value)}, but images for {source} are "
        f"normalized with {_text(wanted)}: set "
        f"--config.views.{name}='{_text(wanted)}' unless the weights were "
        "trained otherwise"
      )


def _text(values: Sequence[float]) -> str:
  return str(tuple(float(value) for value in values))
