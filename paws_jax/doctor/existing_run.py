"""A run that the work directory holds, beside the recipe of a command."""

from __future__ import annotations

import os

from paws_jax import config as config_lib
from paws_jax.data.sources import paths
from paws_jax.doctor import findings
from paws_jax.runs import files
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import length
from paws_jax.training import longer_run


def compare(
  report: findings.Report,
  recipe: config_lib.Recipe,
  experiment: experiment_lib.Experiment,
  workdir: str | os.PathLike[str],
) -> None:
  """Says what training would do to a run that is there.

  Args:
    report: receives the findings.
    recipe: of the command.
    experiment: of the recipe.
    workdir: of the command.

  Raises:
    WorkdirError: as training; it is a run of another recipe or other data.
  """
  path = files.resolve(workdir)
  if not newest_checkpoint.holds_run(path):
    length.check(config_lib.resolve(recipe), experiment)
    return
  recipe = paths.absolute(config_lib.resolve(recipe))
  recipe = recipe_lib.with_length(recipe, path)
  if recipe_lib.stored_recipe(path) is not None:
    split = experiment.dataset.split
    workdir_lib.open_run(path, recipe, split.as_json(), split.list_images)
  per_epoch = experiment.pipeline.steps_per_epoch
  longer = longer_run.notice(path, recipe, steps_per_epoch=per_epoch)
  if longer:
    report.warning(longer)
  step = max(newest_checkpoint.steps(path), default=0)
  total = recipe.train.epochs * per_epoch
  if step < total:
    report.say(f"{path} holds this run at step {step:,}: it is continued")
  else:
    report.say(
      f"{path} holds this run, which has taken all its steps: training only "
      "measures and shows its result; to train anew, choose another --workdir"
    )
