"""The estimated prior of a run, as metrics, words and fields of its result."""

from __future__ import annotations

from typing import Any

import numpy as np

from paws_jax.methods import class_prior
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib

# Classes that a line names.
_MOST_NAMES = 12


def scalars(state: state_lib.TrainState) -> dict[str, float]:
  """Returns metrics of the estimate; empty without one."""
  found = class_prior.read(state.extra)
  if found is None:
    return {}
  return {
    "prior_smallest": float(found.shares.min()),
    "prior_largest": float(found.shares.max()),
    "prior_change": found.change,
  }


def say(
  experiment: experiment_lib.Experiment, state: state_lib.TrainState
) -> None:
  """Prints the estimate; nothing without one."""
  found = class_prior.read(state.extra)
  if found is None:
    return
  order = np.argsort(-found.shares, kind="stable")
  class_names = experiment.dataset.class_names
  names = [f"{class_names[k]} {found.shares[k]:.1%}" for k in order]
  if len(names) > _MOST_NAMES:
    half = _MOST_NAMES // 2
    names = [*names[:half], "...", *names[-half:]]
  moved = (
    f"those by the labels alone and by training differ by {found.change:.1%}; "
    if found.change
    else ""
  )
  print(
    f"estimated shares of the classes: {', '.join(names)}; {moved}"
    f"{confidence(found.held_out_accuracy)}"
  )


def say_first(
  experiment: experiment_lib.Experiment,
  state: state_lib.TrainState,
  step: int,
) -> None:
  """Prints the estimate before the first step, and what it rests on."""
  if step:
    return
  say(experiment, state)
  is_random = not experiment.init_from
  if is_random and class_prior.read(state.extra) is not None:
    print(
      "warning: method.prior is 'estimate' but model.init_from is '': the "
      "labels alone classify features of random weights, and half of the "
      "prior rests on that; name weights to start from, or set method.prior "
      "to another value"
    )


def result(
  experiment: experiment_lib.Experiment, state: state_lib.TrainState
) -> dict[str, Any]:
  """Prints the estimate at the end of a run, and makes fields of its result."""
  found = class_prior.read(state.extra)
  if found is None:
    return {}
  say(experiment, state)
  names, accuracy = experiment.dataset.class_names, found.held_out_accuracy
  shares = [round(float(share), 4) for share in found.shares]
  return {
    "prior": [list(pair) for pair in zip(names, shares, strict=True)],
    "prior_change": found.change,
    "prior_held_out_accuracy": accuracy if np.isfinite(accuracy) else None,
  }


def confidence(accuracy: float | None) -> str:
  """Says how far an estimate can be trusted."""
  if accuracy is None or not np.isfinite(accuracy):
    return "how well the labels alone classify was not measured"
  return (
    f"a classifier of the labels alone is right for {accuracy:.0%} of labelled "
    "images that it has not seen"
  )
