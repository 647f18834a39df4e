"""`--task=pretrain`: train by a recipe, then classify with the labelled images.

A second run of the same command in the same workdir goes on where the first
one stopped, and ends with the same numbers as if it had not.
"""

from __future__ import annotations

import signal
from typing import Any

import jax
import ml_collections

from paws_jax import agreement
from paws_jax import checkpoint
from paws_jax import classifier_source
from paws_jax import config as config_lib
from paws_jax import experiment as experiment_lib
from paws_jax import figures
from paws_jax import memory_advice
from paws_jax import metrics
from paws_jax import reference_curves
from paws_jax import results
from paws_jax import terminal
from paws_jax import training_run
from paws_jax import workdir as workdir_lib
from paws_jax.interop import run_weights


def prepare(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  compare_to: str | None = None,
) -> training_run.Prepared:
  """Checks everything a user can get wrong, before anything takes long.

  Args:
    config: the recipe, with overrides.
    workdir: the run's directory; made if it does not exist.
    compare_to: another run's directory, or a recipe with reference curves.

  Raises:
    ValueError, TypeError, FileNotFoundError: with a message for the user.
    MemoryError: when the data do not fit on the devices.
    distributed.DistributedError: when the processes do not agree.
  """

  def build() -> experiment_lib.Experiment:
    config_lib.validate(config)
    with memory_advice.training(config):
      return experiment_lib.create(config)

  reference = agreement.on_all(
    lambda: reference_curves.find(compare_to) if compare_to else None
  )
  experiment = agreement.on_all(build)
  for notice in experiment.dataset.notices:
    print(notice)
  split = experiment.dataset.split.as_json()
  agreement.agree(
    recipe=config.to_json(sort_keys=True),
    split_hash=split["hash"],
    code=workdir_lib.code_hash(),
    **{name: str(v) for name, v in workdir_lib.versions().items()},
  )

  def write() -> str:
    path = workdir_lib.prepare(workdir, config, split)
    workdir_lib.write_split(path, split)
    return workdir_lib.write_environment(path)

  start = agreement.gather(agreement.on_main(write))[0]
  path = workdir_lib.resolve(workdir)
  agreement.on_all(lambda: workdir_lib.check_shared(path, start))
  if not run_weights.steps(path):
    experiment.check_init_from()
  return training_run.Prepared(
    config=config, workdir=path, experiment=experiment, reference=reference
  )


def run(prepared: training_run.Prepared) -> int:
  """Trains, saves, evaluates and reports.

  Returns:
    The exit status: 0, also after SIGTERM; 130 after SIGINT.

  Raises:
    decode.BadImageError: when an image cannot be read and must not be replaced.
    train.NonFiniteError: when a number is not finite; the run stops.
    checkpoint.CheckpointError: when a checkpoint cannot be written or read.
    MemoryError: when the devices' memory does not suffice.
    workdir.WorkdirError: when another process is using the directory.
  """
  total = prepared.experiment.total_steps
  with memory_advice.training(prepared.config):
    with (
      workdir_lib.run_lock(prepared.workdir),
      terminal.Signals(several=jax.process_count() > 1) as signals,
      checkpoint.Checkpointer(
        prepared.workdir / workdir_lib.CHECKPOINTS,
        keep_every_steps=prepared.experiment.checkpoint.keep_every_steps,
      ) as checkpointer,
    ):
      process = training_run.TrainingRun(prepared, checkpointer, signals)
      # A directory may look different from elsewhere: process 0 decides.
      row, drawn = agreement.gather(_found(prepared, process.step))[0]
      if row is None:
        process.train()
    if row is not None:
      print(f"this run is finished ({total} steps); its result:")
      if not drawn or prepared.reference is not None:
        process.draw()
      if not (prepared.workdir / classifier_source.DIRECTORY).exists():
        process.save_classifier()
    elif process.step < total:
      return _stopped(process.step, total, signals.received)
    else:
      row = process.report()
      process.save_classifier()
  print(f"\n{results.table(row)}")
  next_command = prepared.experiment.log.next_command
  print(results.footer(prepared.workdir, next_command))
  return 0


def _stopped(step: int, total: int, by: signal.Signals) -> int:
  """Says how a run that was asked to stop can go on; the exit status."""
  saved = "it is saved, and the" if step else "nothing was lost, and the"
  print(
    f"stopped by {by.name} at step {step} of {total}; {saved} same command "
    "goes on from there."
  )
  return 130 if by == signal.SIGINT else 0


def _found(
  prepared: training_run.Prepared, step: int
) -> tuple[dict[str, Any] | None, bool]:
  """The result that an earlier run has written, and whether the figure is.

  None at a step before the last.
  """
  if step < prepared.experiment.total_steps:
    return None, False
  done = [
    row
    for row in metrics.read_results(prepared.workdir)
    if row.get("task") == training_run.TASK
    and row.get("steps") == prepared.experiment.total_steps
  ]
  drawn = (prepared.workdir / figures.TRAINING).exists()
  return done[-1] if done else None, drawn
