"""`--task=pretrain`: trains by a recipe, evaluates and saves a classifier.

The same command resumes a run that was stopped, and ends with the numbers of an
uninterrupted run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import signal
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import methods as config_methods
from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import paths
from paws_jax.distributed import agree
from paws_jax.evaluation import pixel_baselines
from paws_jax.evaluation import result_rows
from paws_jax.monitoring import reference_curves
from paws_jax.plan import auto_chunks
from paws_jax.plots import training_figure
from paws_jax.runs import checkpoint
from paws_jax.runs import files
from paws_jax.runs import metrics
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import out_of_memory
from paws_jax.runs import provenance
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import requirements
from paws_jax.runs import results
from paws_jax.runs import signals as signals_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import length
from paws_jax.training import longer_run
from paws_jax.training import measure
from paws_jax.training import no_labels
from paws_jax.training import run as run_lib
from paws_jax.training import run_log
from paws_jax.training import time_budget
from paws_jax.training import trunk_features

# Fields of a result that its table shows.
_SHOWN = (
  "dataset",
  "method",
  "num_labels",
  "num_test",
  "wall_seconds",
  "compile_seconds",
  "steps_per_second",
)


def prepare(
  config: config_lib.Recipe | ml_collections.ConfigDict,
  workdir: str,
  *,
  compare_to: str | None = None,
  arrays: arrays_lib.Arrays | None = None,
  devices: Sequence[jax.Device] | None = None,
) -> run_lib.PretrainInputs:
  """Checks recipe, data and directory before anything takes long.

  Args:
    config: the recipe, with overrides.
    workdir: the run's directory; made if it does not exist.
    compare_to: another run's directory, or a recipe with reference curves.
    arrays: the data; by default what section `data` names.
    devices: of `experiment.create`.

  Raises:
    errors.UserError: the input cannot be used; with a message for the user.
    MemoryError: when the data do not fit on the devices.
    errors.DistributedError: when the processes do not agree.
  """
  recipe = agree.on_all(lambda: paths.absolute(config_lib.resolve(config)))
  agree.on_all(lambda: requirements.check_loggers(recipe.log))
  path = files.resolve(workdir)
  recipe = agree.on_all(lambda: recipe_lib.with_length(recipe, path))
  reference = agree.on_all(
    lambda: reference_curves.find(compare_to) if compare_to else None
  )
  recipe, experiment = agree.on_all(
    lambda: _build(recipe, arrays=arrays, devices=devices)
  )
  for notice in experiment.dataset.notices:
    print(notice)
  split = experiment.dataset.split
  agree.agree(
    recipe=json.dumps(recipe_lib.identity(recipe), sort_keys=True),
    **{"the hash of the labelled images and of the data": split.hash},
    code=provenance.code_hash(),
    **{name: str(v) for name, v in provenance.versions().items()},
  )

  per_epoch = experiment.pipeline.steps_per_epoch
  longer = agree.on_main(
    lambda: longer_run.notice(path, recipe, steps_per_epoch=per_epoch)
  )
  if longer:
    print(f"warning: {longer}")
  is_new = not newest_checkpoint.steps(path)
  if is_new:
    length.check(recipe, experiment)
  _open_workdir(path, recipe, split)
  if is_new:
    experiment.check_init_from()
  experiment = trunk_features.create(recipe, experiment, path)
  if recipe.train.minutes:
    recipe, experiment = _lay_out(recipe, experiment, path, devices)
  return run_lib.PretrainInputs(
    recipe=recipe, workdir=path, experiment=experiment, reference=reference
  )


def _build(recipe: config_lib.Recipe, **parts: Any) -> Any:
  """Builds the parts of a recipe; see `auto_chunks.create`."""
  with out_of_memory.training(recipe):
    return auto_chunks.create(recipe, **parts)


def _lay_out(
  recipe: config_lib.Recipe,
  experiment: experiment_lib.Experiment,
  path: epath.Path,
  devices: Sequence[jax.Device] | None,
) -> tuple[config_lib.Recipe, experiment_lib.Experiment]:
  """Finds the epochs of a new run with `train.minutes`, and notes them."""
  with out_of_memory.training(recipe):
    recipe, found = time_budget.lay_out(recipe, experiment)
  experiment = experiment_lib.create(recipe, like=experiment, devices=devices)
  length.check(recipe, experiment)
  _open_workdir(path, recipe, experiment.dataset.split, found=found)
  return recipe, experiment


def _open_workdir(
  path: epath.Path,
  recipe: config_lib.Recipe,
  split: split_lib.Split,
  **options: Any,
) -> None:
  """Writes recipe, split and environment; of several processes all call it."""

  def write() -> str:
    listed = split.as_json(), split.list_images
    workdir_lib.prepare(path, recipe, *listed, **options)
    workdir_lib.write_split(path, *listed)
    return provenance.write_environment(path)

  trunk_features.check(recipe, path)
  start = agree.gather(agree.on_main(write))[0]
  agree.on_all(lambda: provenance.check_shared(path, start))


@dataclasses.dataclass(frozen=True)
class Outcome:
  """How far a run has come.

  Attributes:
    row: its result; None: it was stopped.
    step: steps taken.
    stopped_by: the signal that stopped it, if any.
  """

  row: dict[str, Any] | None
  step: int
  stopped_by: signal.Signals | None


def train(prepared: run_lib.PretrainInputs) -> Outcome:
  """Trains, saves and evaluates.

  Raises:
    errors.BadImageError: when an image cannot be read and must not be replaced.
    errors.NonFiniteError: when a number is not finite; the run stops.
    errors.CheckpointError: when a checkpoint cannot be written or read.
    MemoryError: when the devices' memory does not suffice.
    errors.WorkdirError: when another process is using the directory.
  """
  total = prepared.experiment.total_steps
  with (
    out_of_memory.training(prepared.recipe),
    contextlib.ExitStack() as stack,
  ):
    with (
      workdir_lib.run_lock(prepared.workdir),
      signals_lib.Signals(several=jax.process_count() > 1) as signals,
      checkpoint.Checkpointer(
        prepared.workdir / workdir_lib.CHECKPOINTS,
        keep_every_steps=prepared.experiment.checkpoint.keep_every_steps,
      ) as checkpointer,
    ):
      process = stack.enter_context(
        run_lib.TrainingRun(prepared, checkpointer, signals)
      )
      # Processes may see different states of a directory: process 0 decides.
      row, drawn = agree.gather(_finished_row(prepared, process.step))[0]
      if row is None:
        process.train()
    if row is not None:
      print(f"this run is finished ({total} steps); its result:")
      if not drawn or prepared.reference is not None:
        process.draw()
      if not (prepared.workdir / workdir_lib.CLASSIFIER).exists():
        process.save_classifier()
      agree.on_main(
        functools.partial(_send_finished, prepared, process.step, row)
      )
    elif process.step >= total:
      row = process.report()
      process.save_classifier()
  return Outcome(row, process.step, signals.received)


def _send_finished(
  prepared: run_lib.PretrainInputs, step: int, row: Mapping[str, Any]
) -> None:
  """Sends a finished run to loggers that lack a part; its result is there."""
  workdir = prepared.workdir
  with workdir_lib.run_lock(workdir):
    try:
      run_log.send_finished(prepared.recipe, workdir, step=step, row=row)
    except errors.InputError as error:
      print(f"warning: {error}")


def run(prepared: run_lib.PretrainInputs) -> int:
  """Trains, saves, evaluates and reports.

  Returns:
    The exit status: 0, also after SIGTERM; 130 after SIGINT.

  Raises:
    The errors of `train`.
  """
  outcome = train(prepared)
  if outcome.row is None:
    total = prepared.experiment.total_steps
    assert outcome.stopped_by is not None
    return _stopped(outcome.step, total, outcome.stopped_by)
  print(f"\n{table(outcome.row)}")
  if not prepared.experiment.dataset.labelled:
    print(f"\n{no_labels.NO_RESULT} {no_labels.ADVICE}")
  next_command = prepared.experiment.log.next_command
  print(footer(prepared.workdir, next_command))
  return 0


def _stopped(step: int, total: int, by: signal.Signals) -> int:
  """Prints how to resume a stopped run; returns the exit status."""
  saved = "the state is saved" if step else "nothing was lost"
  print(
    f"stopped by {by.name} at step {step} of {total}: {saved}, and the same "
    "command resumes from there."
  )
  return 130 if by == signal.SIGINT else 0


def _finished_row(
  prepared: run_lib.PretrainInputs, step: int
) -> tuple[dict[str, Any] | None, bool]:
  """Finds the result of a finished run, and whether its figure is drawn.

  Returns:
    (row, whether the figure exists); the row is None for an unfinished run.
  """
  if step < prepared.experiment.total_steps:
    return None, False
  done = [
    row
    for row in results.read_results(prepared.workdir)
    if row.get("task") == measure.TASK
    and row.get("steps") == prepared.experiment.total_steps
    and all(row.get(name) is not None for name in _SHOWN)
  ]
  drawn = (prepared.workdir / training_figure.TRAINING).exists()
  return done[-1] if done else None, drawn


def table(row: Mapping[str, Any]) -> str:
  """Formats the accuracies of a result row as a table."""
  labels, count = row["num_labels"], row["num_test"]
  kind = config_methods.config_class(row["method"])
  decides = "class head" if row.get("protocol") == "class_head" else "soft NN"
  name = kind.soft_nn_title or f"{row['method']}, {decides}"
  images = f"{count} test images" if count else "no test images"
  lines = (
    (name, "", count),
    (f"{name}, validation", "validation_", row.get("num_validation", 0)),
    ("soft NN of the trunk", "soft_nn_", count),
    *_pixel_lines(row),
    ("leave-one-out, labelled", "leave_one_out_", labels),
  )
  text = result_rows.table(
    f"{row['dataset']}: {labels} labels, {images}, 95 % intervals",
    [
      (
        title,
        [result_rows.cell(row, prefix + k, number) for k in ("top1", "top5")],
      )
      for title, prefix, number in lines
      if row.get(f"{prefix}top1") is not None
    ],
  )
  return (
    f"{text}\n\n{row['wall_seconds']:.0f} s in all, "
    f"{row['compile_seconds']:.0f} s of them compiling; "
    f"{row['steps_per_second']:.2f} steps/s"
  )


def _pixel_lines(row: Mapping[str, Any]) -> list[tuple[str, str, int]]:
  """Returns (title, prefix of the fields, images) of the pixel baselines."""
  part = row.get("raw_pixel_part", "test")
  count = row.get("num_raw_pixel", row["num_test"])
  where = {"test": "", "labelled": ", leave-one-out"}.get(part, f", {part}")
  return [
    (f"{title}{where}", prefix, count)
    for prefix, title in pixel_baselines.TITLES.items()
  ]


def footer(workdir: epath.Path, next_command: str) -> str:
  """Formats the paths of a run's files, and the command to try next."""
  lines = [
    f"checkpoint  {workdir / workdir_lib.CHECKPOINTS}",
    f"metrics     {workdir / metrics.METRICS}",
    f"results     {workdir / results.RESULTS}",
    f"figure      {workdir / training_figure.TRAINING}",
  ]
  if (workdir / workdir_lib.CLASSIFIER).exists():
    lines.append(f"classifier  {workdir / workdir_lib.CLASSIFIER}")
  if next_command:
    lines += ["", f"next, try   {next_command}"]
  return "\n".join(lines)
