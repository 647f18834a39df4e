"""Semi-supervised image classification with PAWS.

python -m paws_jax.main --config=configs/quickstart.py
"""

# Tasks import what they need when they run, so that `--help` answers at once.

from __future__ import annotations

import ast
import importlib
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import ml_collections
from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from paws_jax import terminal

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe, e.g. configs/quickstart.py. Any field can be changed on the "
  "command line: --config.train.epochs=50.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Directory for checkpoints, metrics and results. Running the same command "
  "again goes on where it stopped. Default: runs/NAME_OF_THE_RECIPE.",
)
_TASK = flags.DEFINE_enum(
  "task",
  "pretrain",
  [
    "pretrain",
    "evaluate",
    "finetune",
    "predict",
    "report",
    "export",
    "doctor",
    "topology",
    "plan",
  ],
  "What to do with the recipe: pretrain. After that: evaluate it by more "
  "protocols; finetune it on the labels; predict the classes of any images; "
  "write a report as a web page; export it to other systems. Before: have "
  "recipe and data examined by the doctor; show the devices and what each gets "
  "(topology); compile it for machines that are not there, to see whether it "
  "fits (plan).",
)
_TOPOLOGY = flags.DEFINE_string(
  "topology", None, "Of --task=plan: the machine, e.g. v5e:8x8 or h100:8."
)
_IMAGES = flags.DEFINE_string(
  "images",
  None,
  "Of --task=predict: a directory of images, an image, or a CSV file with a "
  "column of paths.",
)
_CLASSIFIER = flags.DEFINE_string(
  "classifier",
  None,
  "Of --task=predict: a saved classifier's directory, instead of --workdir.",
)
_ADD_CLASS = flags.DEFINE_multi_string(
  "add_class",
  [],
  "Of --task=predict: NAME=DIR, a class to add without training, and its "
  "images; can be repeated.",
)
_HEAD = flags.DEFINE_enum(
  "head",
  "soft_nn",
  ["soft_nn", "finetuned"],
  "Of --task=predict: what decides, the vote of the labelled images or the "
  "head of a fine-tuned run.",
)
_OUTPUT = flags.DEFINE_string(
  "output",
  None,
  "Of --task=predict, report and export: where to write. Default: a place in "
  "--workdir, which is shown.",
)
_TARGETS = flags.DEFINE_list(
  "targets",
  ["stablehlo"],
  "Of --task=export: some of stablehlo, savedmodel, torch, with commas.",
)
_COORDINATOR = flags.DEFINE_string(
  "coordinator_address",
  None,
  "HOST:PORT of process 0, for a run of several processes. On Cloud TPU, GKE, "
  "SLURM and Open MPI, and with torchrun's variables, this and the next two "
  "are found.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes of the run."
)
_PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0."
)
_TIMEOUT = flags.DEFINE_integer(
  "startup_timeout", 300, "Seconds to wait for the other processes.", 1
)


# A task's module and the flags that it takes besides recipe and workdir; the
# module has prepare(config, workdir, **flags) and run(prepared).
_MODULES = {
  "pretrain": ("pretrain", ()),
  "evaluate": ("evaluation", ()),
  "finetune": ("finetune", ()),
  "predict": (
    "predict",
    ("images", "classifier", "add_class", "head", "output"),
  ),
  "report": ("report", ("output",)),
  "export": ("export", ("output", "targets")),
}
# They work on a run that has its recipe, in one process.
_AFTERWARDS = ("predict", "report", "export")


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line, a recipe's fields included.

  Exits with status 2 and one line when it is wrong. Libraries log warnings
  only, unless --verbosity asks for more.
  """
  recipe = _recipe_in(argv)
  if recipe and not pathlib.Path(recipe.partition(":")[0]).is_file():
    sys.exit(_fail(f"--config={recipe}: there is no such file", 2))
  try:
    rest = flags.FLAGS(argv)
    # ml_collections puts the error of a missing file off until this is used.
    _ = _CONFIG.value is None or _CONFIG.value.keys
  except flags.Error as error:
    # Of an error in a recipe, such as an unknown variant, a whole traceback.
    lines = str(error).splitlines()
    short = "Traceback" in str(error)
    sys.exit(_fail(f"--config={recipe}: {lines[-1]}" if short else error, 2))
  except OSError:
    sys.exit(_fail(f"--config={recipe} cannot be read", 2))
  except (AttributeError, KeyError) as error:
    sys.exit(_fail(f"a recipe has no such field: {_no_field(error)}", 2))
  if flags.FLAGS["verbosity"].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING
  return rest


def _recipe_in(argv: Sequence[str]) -> str:
  """What --config names on a command line; "" without."""
  for argument, following in zip(argv, [*argv[1:], ""], strict=True):
    found = re.fullmatch("--?config(?:=(.*))?", argument)
    if found:
      return following if found[1] is None else found[1]
  return ""


def main(argv: Sequence[str]) -> int:
  """Dispatches on --task; returns the exit status."""
  if len(argv) > 1:
    return _fail(f"unknown arguments: {' '.join(argv[1:])}", 2)
  task = _TASK.value
  try:
    _check_options()
    config = _recipe()
  except ValueError as error:
    return _fail(error, 2)
  if (task == "plan") != (_TOPOLOGY.value is not None):
    return _fail("--task=plan and --topology=NAME belong together", 2)
  workdir = _WORKDIR.value or ""
  if not workdir and _CONFIG.value is not None:
    workdir = str(pathlib.Path("runs") / _recipe_name())
  terminal.protect_output()
  try:
    if task in ("plan", "doctor"):
      # One process does.
      return {"plan": _plan, "doctor": _doctor}[task](workdir)
    if task in _AFTERWARDS:
      return _alone(config, workdir)
    return _together(config, workdir)
  except KeyboardInterrupt:
    return _fail("interrupted; the same command goes on where it can", 130)


def _check_options() -> None:
  """Refuses flags that another task would read."""
  known = {name for _, names in _MODULES.values() for name in names}
  mine = _MODULES.get(_TASK.value, ("", ()))[1]
  for name in sorted(known.difference(mine)):
    if flags.FLAGS[name].present:
      tasks = [task for task, (_, names) in _MODULES.items() if name in names]
      raise ValueError(
        f"--{name} is read by --task={' and '.join(tasks)} only, and the task "
        f"is {_TASK.value}: leave one of them out"
      )


def _recipe() -> ml_collections.ConfigDict | None:
  """The recipe of the command line, or that of a run to go on with.

  None when --classifier stands for both.

  Raises:
    ValueError: when there is none.
  """
  if _CONFIG.value is not None:
    return _CONFIG.value
  if _CLASSIFIER.value:
    return None
  if _TASK.value in (*_AFTERWARDS, "evaluate", "finetune") and _WORKDIR.value:
    from paws_jax import workdir as workdir_lib

    return workdir_lib.recipe(_WORKDIR.value)
  raise ValueError(
    "--config is missing: give a recipe, e.g. --config=configs/quickstart.py"
  )


def _alone(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Runs a task that one process does, on all cores of a CPU."""
  from paws_jax import sharding

  if config is not None:
    sharding.use_cpu_cores(config.eval.batch_size)
  return _execute(config, workdir)


def _together(config: ml_collections.ConfigDict, workdir: str) -> int:
  """Runs a task that may have several processes."""
  from paws_jax import distributed

  try:
    status = _start(config)
    if status:
      return status
    if _TASK.value == "topology":
      status = _topology(config)
    else:
      status = _execute(config, workdir)
  except KeyboardInterrupt:
    status = _fail("interrupted; the same command goes on where it can", 130)
  if status:
    # Of several processes, an ordinary end would wait for the others.
    distributed.exit_now(status)
  return status


def _start(config: ml_collections.ConfigDict) -> int:
  """Joins the other processes of the run, if there are any; exit status."""
  from paws_jax import agreement
  from paws_jax import distributed
  from paws_jax import sharding

  try:
    launch = distributed.detect(
      coordinator_address=_COORDINATOR.value,
      num_processes=_NUM_PROCESSES.value,
      process_id=_PROCESS_ID.value,
    )
  except ValueError as error:
    return _fail(error, 2)
  num_processes = launch.num_processes or 1 if launch else 1
  sharding.use_cpu_cores(max(config.train.batch_size, 0) // num_processes)
  try:
    distributed.initialize(launch, timeout_seconds=_TIMEOUT.value)
    agreement.agree(task=_TASK.value)
  except agreement.DisagreementError as error:
    return _fail(error, 2)
  except distributed.DistributedError as error:
    return _fail(error, 1)
  if not distributed.is_main():
    terminal.silence_output()
  return 0


def _topology(config: ml_collections.ConfigDict) -> int:
  from paws_jax import agreement
  from paws_jax import topology

  try:
    return topology.run(config)
  except (ValueError, TypeError, agreement.DisagreementError) as error:
    return _fail(error, 2)


def _plan(workdir: str) -> int:
  from paws_jax import plan

  return plan.run(_CONFIG.value, workdir, topology=_TOPOLOGY.value)


def _execute(config: ml_collections.ConfigDict | None, workdir: str) -> int:
  """Has a task's module prepare it, then run it; returns the exit status."""
  from paws_jax import agreement
  from paws_jax import checkpoint
  from paws_jax import distributed
  from paws_jax import train
  from paws_jax import workdir as workdir_lib
  from paws_jax.data import decode

  name, options = _MODULES[_TASK.value]
  task = importlib.import_module(f"paws_jax.{name}")
  try:
    prepared = task.prepare(
      config, workdir, **{name: flags.FLAGS[name].value for name in options}
    )
  except (
    ValueError,
    TypeError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
    PermissionError,
    agreement.DisagreementError,
  ) as error:
    return _fail(error, 2)
  except (
    MemoryError,
    checkpoint.CheckpointError,
    distributed.DistributedError,
    *workdir_lib.storage_errors(),
  ) as error:
    # Nothing to refuse: another time it may work.
    return _fail(error, 1)
  try:
    return task.run(prepared)
  except (
    decode.BadImageError,
    train.NonFiniteError,
    checkpoint.CheckpointError,
    workdir_lib.WorkdirError,
    distributed.DistributedError,
    MemoryError,
    *workdir_lib.storage_errors(),
  ) as error:
    return _fail(error, 1)


def _doctor(workdir: str) -> int:
  from paws_jax import doctor
  from paws_jax import sharding

  sharding.use_cpu_cores(_CONFIG.value.train.batch_size)
  return doctor.run(
    _CONFIG.value, workdir, train_command=_train_command(sys.argv[1:])
  )


def _train_command(arguments: Sequence[str]) -> str:
  """The command with these arguments, but --task."""
  kept, skip = [], False
  for argument in arguments:
    if not skip and not re.fullmatch("--?task(=.*)?", argument):
      kept.append(argument)
    # "--task doctor" is allowed, too.
    skip = argument in ("--task", "-task")
  return f"python -m paws_jax.main {shlex.join(kept)}"


def _recipe_name() -> str:
  """Gives "imagenet-1pct" for --config=configs/imagenet.py:1pct."""
  path, _, variant = _config_path().partition(":")
  name = pathlib.Path(path).stem
  return f"{name}-{variant.replace(',', '-')}" if variant else name


def _no_field(error: AttributeError | KeyError) -> str:
  """What ml_collections says of a field that does not exist, in one line.

  Raises:
    AttributeError, KeyError: `error`, when it is about something else.
  """
  # It wraps "'epoch'\nDid you mean ..." into a KeyError, which quotes it again.
  try:
    message = ast.literal_eval(str(error))
  except (SyntaxError, ValueError):
    raise error from None
  if not message.startswith("'"):
    raise error
  return " ".join(message.split())


def _config_path() -> str:
  return str(config_flags.get_config_filename(flags.FLAGS["config"]))


def _fail(error: Exception | str, status: int) -> int:
  print(f"error: {error}", file=sys.stderr)
  return status


if __name__ == "__main__":
  app.run(main, flags_parser=parse_flags)
