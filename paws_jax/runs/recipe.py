"""The recipe a run has stored, and how another one differs from it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.runs import files

RECIPE = "config.json"

# What may change between two commands on one workdir. `train.epochs` may grow:
# from the step where the run goes on, the learning rate follows the schedule of
# the longer run.
_FREE = (
  "log.",
  "eval.",
  "checkpoint.",
  "finetune.",
  # So that a run that a bad image has stopped can go on without it.
  "data.on_bad_image",
  "data.max_pixels",
  "data.support_cache_mb",
)
_EPOCHS = "train.epochs"


def load(path: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """The recipe of the run in a directory; locked.

  Fields that are newer than the run have their defaults.

  Raises:
    WorkdirError: when there is no run, or its recipe has unknown fields.
  """
  workdir = files.resolve(path)
  stored = stored_recipe(workdir)
  if stored is None:
    raise errors.WorkdirError(
      f"--workdir={workdir} holds no run: there is no {RECIPE} in it."
    )
  config = config_lib.base().lock()
  try:
    config.update_from_flattened_dict(
      {name: _tupled(value) for name, value in flatten(stored).items()}
    )
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise errors.WorkdirError(
      f"{workdir / RECIPE} has another version's fields: "
      f"{str(error).splitlines()[0]}. Give the recipe with --config."
    ) from None
  return config


def stored_recipe(workdir: epath.Path) -> dict[str, Any] | None:
  """The recipe in a directory as its run has written it; None: there is none.

  Raises:
    WorkdirError: when it is damaged.
  """
  return files.read_object(workdir / RECIPE)


def check_recipe(
  path: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> epath.Path:
  """As `open_run`, for those who do not look at the data.

  Args:
    path: a run's directory.
    config: the resolved recipe.

  Returns:
    The absolute path.

  Raises:
    WorkdirError: when the directory holds no run or that of another recipe.
  """
  workdir = files.resolve(path)
  stored = stored_recipe(workdir)
  if stored is None:
    raise errors.WorkdirError(
      f"--workdir={workdir} holds no run: pre-train first, or name the "
      "directory of one."
    )
  check_same(stored, json.loads(config.to_json()), workdir)
  return workdir


def check_same(
  stored: Mapping[str, Any], recipe: Mapping[str, Any], workdir: epath.Path
) -> None:
  """Refuses a recipe that would train otherwise than the stored one.

  Raises:
    WorkdirError: naming the fields that differ.
  """
  differing = [
    f"{name}: {before} there, {now} now"
    for name, (before, now) in differences(stored, recipe).items()
    if not (name == _EPOCHS and now > before)
  ]
  if differing:
    raise errors.WorkdirError(
      f"{workdir} holds a run of another recipe:\n  "
      + "\n  ".join(differing)
      + "\nChoose another --workdir, or give the recipe it was started with "
      "(log, eval and checkpoint intervals may change, train.epochs may grow)."
    )


def differences(
  stored: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Fields in which two recipes differ, but for those that change no training.

  Args:
    stored: of an earlier run, by section or by dotted name. Fields that are
      newer than the run had no effect on it: their defaults.
    recipe: as it is now, likewise.

  Returns:
    {dotted name: (its value in `stored`, in `recipe`)}, by name; a value that
    one of them has not is "(absent)".
  """
  defaults = json.loads(config_lib.base().to_json())
  old, new = flatten(defaults) | flatten(stored), flatten(recipe)
  absent = "(absent)"
  pairs = {
    name: (old.get(name, absent), new.get(name, absent))
    for name in sorted(old.keys() | new.keys())
    if changes_training(name)
  }
  return {k: (a, b) for k, (a, b) in pairs.items() if a != b}


def changes_training(field: str) -> bool:
  """Whether a field, by dotted name, matters for how a recipe trains."""
  return not field.startswith(_FREE)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Flattens nested sections into {dotted name: value}."""
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def _tupled(value: Any) -> Any:
  """JSON has lists only."""
  return tuple(value) if isinstance(value, list) else value
