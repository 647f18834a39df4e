"""Restores a run for evaluation and the other tasks after training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data.sources import paths
from paws_jax.distributed import agree
from paws_jax.runs import checkpoint
from paws_jax.runs import files
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import checkpoints
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import no_labels


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedRun:
  """The encoder that a run has trained so far, with its data.

  Attributes:
    recipe: its recipe.
    workdir: its directory.
    experiment: data, split, embedder.
    params: parameters of the encoder that evaluation and classifiers use.
    batch_stats: its batch statistics.
    step: steps taken.
    head: kernel [d, K] and bias [K] of a linear layer that decides instead of
      the labelled images; None: they vote.
  """

  recipe: config_lib.Recipe
  workdir: epath.Path
  experiment: experiment_lib.Experiment
  params: Any
  batch_stats: Any
  step: int
  head: Mapping[str, Any] | None = None


def load(recipe: config_lib.Recipe, workdir: str) -> TrainedRun:
  """Restores the newest checkpoint of a run; of several processes all call it.

  Args:
    recipe: the run's recipe.
    workdir: the run's directory.

  Raises:
    errors.UserError: as for `experiment.create`, or there is no such run.
    errors.CheckpointError: when it has no complete checkpoint.
    errors.DistributedError: when the processes do not agree.
  """
  recipe = agree.on_all(
    lambda: recipe_lib.with_length(recipe, files.resolve(workdir))
  )

  def build() -> tuple[experiment_lib.Experiment, epath.Path]:
    built = experiment_lib.create(_at_once(recipe))
    split = built.dataset.split.as_json()
    return built, workdir_lib.open_run(
      workdir, paths.absolute(recipe), split, built.dataset.split.list_images
    )

  experiment, path = agree.on_all(build)
  no_labels.check_run(path, experiment.dataset)
  for notice in experiment.dataset.notices:
    print(notice)
  trainer = experiment.trainer
  directory = path / workdir_lib.CHECKPOINTS
  restored = None
  if directory.exists():
    with checkpoint.Checkpointer(directory, read_only=True) as checkpointer:
      restored = checkpoints.restore_latest(
        checkpointer,
        trainer,
        experiment.state_shapes(),
        reads=lambda state: (
          trainer.method.encoder_variables(state),
          trainer.method.head(state),
        ),
      )
  if restored is None:
    raise errors.CheckpointError(
      f"{path} has no checkpoint yet: pre-train first, with the command of its "
      "recipe and no --task; if that is running, wait for its first checkpoint "
      "(checkpoint.every_steps, or the end)."
    )
  step, state, _ = restored
  if step < experiment.total_steps:
    print(f"the run has taken {step} of {experiment.total_steps} steps so far")
  variables = trainer.method.encoder_variables(state)
  return TrainedRun(
    recipe=recipe,
    workdir=path,
    experiment=experiment,
    params=variables["params"],
    batch_stats=variables["batch_stats"],
    step=step,
    head=trainer.method.head(state),
  )


def _at_once(recipe: config_lib.Recipe) -> config_lib.Recipe:
  """Returns a recipe without chunks: what trains no more needs none."""
  train = dataclasses.replace(recipe.train, chunks=1)
  return dataclasses.replace(recipe, train=train)
