"""Findings about the features of a frozen trunk: space, and time."""

from __future__ import annotations

import pathlib
import shutil

from paws_jax import config as config_lib
from paws_jax.doctor import findings
from paws_jax.runs import files
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import step_times
from paws_jax.training import trunk_features


def space(
  report: findings.Report,
  recipe: config_lib.Recipe,
  experiment: experiment_lib.Experiment,
  workdir: str,
) -> None:
  """Reports the space that the features take, and whether it is there.

  Args:
    report: receives the findings.
    recipe: with a frozen trunk.
    experiment: of the recipe, on images.
    workdir: the run's directory.

  Raises:
    errors.InputError: as of `trunk_features.check`.
  """
  path = files.resolve(workdir)
  trunk_features.check(recipe, path)
  directory = pathlib.Path(path) / trunk_features.DIRECTORY
  needed = trunk_features.disk_bytes(recipe, experiment)
  views, megabytes = recipe.views, f"{needed / 1e6:,.1f} MB"
  report.say(
    f"the trunk is frozen: the features of {views.cached} views of an image by "
    f"each spec, and of {views.cached_support} of a labelled one, take at most "
    f"{megabytes} in {directory}, and as much of each device's memory"
  )
  there = sum(f.stat().st_size for f in directory.rglob("*") if f.is_file())
  existing = next(p for p in directory.parents if p.exists())
  free = shutil.disk_usage(existing).free
  if free + there < needed:
    report.problem(
      f"{existing} has {free / 1e6:,.1f} MB of free space, and the features "
      f"take {megabytes}: choose another --workdir, or lower views.cached"
    )


def time(
  report: findings.Report,
  recipe: config_lib.Recipe,
  experiment: experiment_lib.Experiment,
) -> experiment_lib.Experiment:
  """Reports how long computing the features takes; returns what comes next.

  Args:
    report: receives the findings.
    recipe: with a frozen trunk.
    experiment: of the recipe, on images.

  Returns:
    An experiment on features, to time its steps.

  Raises:
    errors.BadImageError: an image cannot be read.
  """
  words = step_times.in_words(trunk_features.seconds(recipe, experiment))
  report.say(f"computing the features takes about {words}, once")
  return trunk_features.stand_in(recipe, experiment)
