"""The stored recipe of a run, and its differences from another recipe."""

from __future__ import annotations

import dataclasses
import itertools
import os
import shlex
from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import model as model_config
from paws_jax.config import upgrade
from paws_jax.runs import files
from paws_jax.runs import newest_checkpoint

RECIPE = "config.json"

# Fields that may change between two commands on one workdir. `train.epochs` may
# grow: from the step where the run resumes, the learning rate follows the
# schedule of the longer run.
_FREE = (
  "log.",
  "eval.",
  "checkpoint.",
  "finetune.",
  # So that a run that a bad image has stopped can resume without it.
  "data.on_bad_image",
  "data.max_pixels",
  "data.decoder",
  "data.canvas_memory",
  "data.support_cache_mb",
  # Classes and labels themselves stand in the fingerprint of the data.
  "data.real_labels",
)
_EPOCHS = "train.epochs"
# The beginning of advice that ends some messages.
CONTINUE = "To train on the data as they are now, from the weights of this run,"
_INIT_FROM = "model.init_from"

# Where something lies on this machine. It may move: which images a run has been
# trained on, and which of them are labelled, says its split.json.
PLACES = (
  "data.dir",
  "data.manifest",
  "data.unlabelled_dir",
  "data.test_dir",
  "data.labels_file",
  "finetune.holdout_file",
  _INIT_FROM,
)


def load(path: str | os.PathLike[str]) -> config_lib.Recipe:
  """Reads the recipe of the run in a directory.

  Fields that are newer than the run have their defaults.

  Raises:
    errors.WorkdirError: when there is no run, or its recipe has unknown fields.
  """
  workdir = files.resolve(path)
  stored = stored_recipe(workdir)
  if stored is None:
    raise errors.WorkdirError(
      f"--workdir={workdir} holds no run: there is no {RECIPE} in it."
    )
  return stored


def stored_recipe(workdir: epath.Path) -> config_lib.Recipe | None:
  """Reads the recipe that a run has stored; None: there is none.

  Raises:
    errors.WorkdirError: when it is damaged, or has fields of another version.
  """
  return read(workdir / RECIPE)


def read(path: epath.Path) -> config_lib.Recipe | None:
  """Reads a stored recipe from its file; None: there is no such file.

  Raises:
    errors.WorkdirError: when it is damaged, or has fields of another version.
  """
  stored = files.read_object(path)
  if stored is None:
    return None
  try:
    return upgrade.read(stored)
  except errors.UserError as error:
    raise errors.WorkdirError(
      f"{path} cannot be used: {error} Give the recipe with --config and "
      "another --workdir."
    ) from None


def with_length(
  recipe: config_lib.Recipe, workdir: epath.Path
) -> config_lib.Recipe:
  """Gives a recipe the epochs, or chunks, that its run has found.

  Those of a recipe with train.minutes, or with train.chunks=auto.

  Args:
    recipe: a resolved recipe.
    workdir: absolute path of a directory that may hold a run.

  Returns:
    The recipe itself where its fields decide, or no run has started.

  Raises:
    errors.WorkdirError: there is a run of another length.
  """
  auto = not recipe.train.chunks
  stored = stored_recipe(workdir) if recipe.train.minutes or auto else None
  if stored is None or not newest_checkpoint.holds_run(workdir):
    return recipe
  if auto:
    train = dataclasses.replace(recipe.train, chunks=stored.train.chunks)
    recipe = dataclasses.replace(recipe, train=train)
  if not recipe.train.minutes:
    return recipe
  found = laid_out(workdir)
  if found.get("minutes") != recipe.train.minutes:
    by = f", found by train.minutes={found['minutes']:g}" if found else ""
    raise errors.WorkdirError(
      f"{workdir} holds a run of {stored.train.epochs} epochs{by}: the length "
      "of a run that has started is a number of epochs. Continue it with "
      f"--config.train.epochs={stored.train.epochs}, extend it with a larger "
      "number, or choose another --workdir."
    )
  train = dataclasses.replace(
    recipe.train, epochs=stored.train.epochs, minutes=0.0
  )
  return dataclasses.replace(recipe, train=train)


def laid_out(workdir: epath.Path) -> dict[str, Any]:
  """Reads how a run's number of epochs was found; {}: a recipe gave it."""
  stored = files.read_object(workdir / RECIPE) or {}
  found = stored.get(upgrade.LAID_OUT)
  if not isinstance(found, dict):
    return {}
  return found if type(found.get("minutes")) in (int, float) else {}


def write(
  workdir: epath.Path,
  recipe: config_lib.Recipe,
  found: Mapping[str, Any],
) -> None:
  """Writes the recipe of a run; `found` is as of `laid_out`."""
  stored = upgrade.write(recipe)
  if found:
    stored[upgrade.LAID_OUT] = dict(found)
  files.replace_object(workdir / RECIPE, stored)


def check_recipe(
  path: str | os.PathLike[str], recipe: config_lib.Recipe
) -> epath.Path:
  """Checks directory and recipe as `open_run` does, but not the data.

  Args:
    path: a run's directory.
    recipe: the resolved recipe.

  Returns:
    The absolute path.

  Raises:
    errors.WorkdirError: when the directory holds no run, or one of another
      recipe.
  """
  workdir = files.resolve(path)
  stored = stored_recipe(workdir)
  if stored is None:
    raise errors.WorkdirError(
      f"--workdir={workdir} holds no run: pre-train first, or name the "
      "directory of one."
    )
  check_same(stored, with_length(recipe, workdir), workdir)
  return workdir


def _shown(value: Any) -> Any:
  """A value in a message; an empty string is seen."""
  return "''" if value == "" else value


def check_same(
  stored: config_lib.Recipe, recipe: config_lib.Recipe, workdir: epath.Path
) -> None:
  """Refuses a recipe that trains differently from the stored one.

  Raises:
    errors.WorkdirError: naming the fields that differ.
  """
  newest = newest_checkpoint.read(workdir)
  shortest = (newest and newest.epochs) or stored.train.epochs
  differing = [
    f"{name}: {_shown(before)} there, {_shown(now)} now"
    for name, (before, now) in differences(stored, recipe).items()
    if not _may_change(name, before, now, shortest=shortest)
  ]
  fields = [line.partition(":")[0] for line in differing]
  if differing:
    other_data = all(field.startswith("data.") for field in fields)
    raise errors.WorkdirError(
      f"{workdir} holds a run of another recipe:\n  "
      + "\n  ".join(differing)
      + "\nChoose another --workdir, or give the recipe it was started with "
      "(log, eval and checkpoint intervals may change, train.epochs may grow, "
      "and files may have moved)."
      + (f" {how_to_continue(workdir, recipe)}" if other_data else "")
    )


def how_to_continue(
  workdir: epath.Path, recipe: config_lib.Recipe | None
) -> str:
  """Says how to train on other data from the weights of a run.

  Args:
    workdir: of the run.
    recipe: that of the command which was refused; None: that of the run.
  """
  stored = stored_recipe(workdir)
  changed = []
  if stored is not None and recipe is not None:
    changed = [
      f"--config.{name}={_as_flag(now)}"
      for name, (_, now) in differences(stored, recipe).items()
      if name.startswith("data.")
    ]
  taken = (f"{workdir}-{number}" for number in itertools.count(2))
  new = next(path for path in taken if not files.resolve(path).exists())
  command = shlex.join(
    [
      *("python", "-m", "paws_jax.main", f"--config={workdir / RECIPE}"),
      *changed,
      f"--config.{_INIT_FROM}={workdir}",
      f"--workdir={new}",
    ]
  )
  return (
    f"{CONTINUE} in a new directory:\n  {command}\nTo measure this run on "
    "other images: --task=evaluate --test=DIR."
  )


def _as_flag(value: Any) -> str:
  return str(tuple(value) if isinstance(value, list) else value)


def _may_change(field: str, before: Any, now: Any, *, shortest: int) -> bool:
  """Whether a run stays the same when a field changes.

  Args:
    field: its dotted name.
    before: its stored value.
    now: its value in this command.
    shortest: epochs that the newest checkpoint was laid out for.
  """
  if field == _EPOCHS:
    return now >= min(before, shortest)
  if field == _INIT_FROM:
    return _moved(before, now)
  return field in PLACES


def _moved(before: str, now: str) -> bool:
  """Whether `model.init_from` may name the weights that a run started from.

  They are not read again. So another path is accepted where nothing lies at the
  former one any more, or the same.
  """
  if not before or not now:
    return False
  if {before, now} & set(model_config.PRETRAINED):
    return False
  there, here = files.resolve(before), files.resolve(now)
  if not there.exists():
    return True
  if not here.exists():
    return False
  if os.path.realpath(there) == os.path.realpath(here):
    return True
  if there.is_dir() or here.is_dir():
    return False
  return there.read_bytes() == here.read_bytes()


def identity(recipe: config_lib.Recipe) -> dict[str, Any]:
  """Returns the fields of a recipe, by dotted name, without its `PLACES`."""
  flat = upgrade.flatten(recipe.to_dict())
  return {name: value for name, value in flat.items() if name not in PLACES}


def differences(
  stored: config_lib.Recipe, recipe: config_lib.Recipe
) -> dict[str, tuple[Any, Any]]:
  """Finds the fields in which two recipes differ, if they matter in training.

  Args:
    stored: the recipe of an earlier run.
    recipe: the recipe of this command.

  Returns:
    {dotted name: (its value in `stored`, in `recipe`)}, by name; a value that
    one of them lacks is "(absent)". Fields that only one of two methods has
    are left out.
  """
  old = upgrade.flatten(stored.to_dict())
  new = upgrade.flatten(recipe.to_dict())
  names = old.keys() | new.keys()
  if stored.method.name != recipe.method.name:
    common = old.keys() & new.keys()
    names = {n for n in names if n in common or not n.startswith("method.")}
  absent = "(absent)"
  pairs = {
    name: (old.get(name, absent), new.get(name, absent))
    for name in sorted(names)
    if changes_training(name)
  }
  return {name: (a, b) for name, (a, b) in pairs.items() if a != b}


def changes_training(field: str) -> bool:
  """Whether a field, by its dotted name, affects training."""
  return not field.startswith(_FREE)
