"""The flags of `paws_jax.main` and the tasks that read them."""

from __future__ import annotations

import difflib
import pathlib
import re
import shlex
import sys
from collections.abc import Sequence

import ml_collections
from absl import flags
from absl import logging
from ml_collections import config_flags

from paws_jax import errors
from paws_jax.cli import commands
from paws_jax.cli import config_flag
from paws_jax.cli import help as help_lib

# Former names, which still work: --task=NAME and --NAME.
_FORMER_TASKS = {"topology": "devices"}
_FORMER_FLAGS = {"topology": "machine"}

# Flags that a command which trains does not have.
_NOT_TRAINING = "--?(task(=.*)?|classifier(=.*)?|(no)?time_steps(=.*)?)"

CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe: a name of --list, e.g. quickstart, or a file. Any field can be "
  "changed on the command line: --config.train.epochs=50.",
  lock_config=True,
)
config_flag.follow_method(flags.FLAGS["config"])
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Directory for checkpoints, metrics and results. Running the same command "
  "again continues where it stopped. Default: runs/NAME_OF_THE_RECIPE.",
)
TASK = flags.DEFINE_enum(
  "task",
  "pretrain",
  list(commands.TASKS),
  "What to do; `paws-jax TASK` is the same as --task=TASK.",
)
flags.DEFINE_bool("version", False, "Print the version and exit.")
flags.DEFINE_bool("list", False, "List the recipes and exit.")
MACHINE = flags.DEFINE_string(
  "machine", None, "Machine to compile for, e.g. v5e:8x8 or h100:8."
)
flags.DEFINE_string(
  "images",
  None,
  "A directory of images, an image, or a CSV file with a column of paths.",
)
TIME_STEPS = flags.DEFINE_boolean(
  "time_steps",
  False,
  "Compile and time a few steps, and report how long training takes.",
)
flags.DEFINE_string(
  "test",
  None,
  "Other images to measure on: a directory with a folder of images for each "
  "class, or a CSV file with the columns path and label.",
)
flags.DEFINE_string(
  "protocol",
  None,
  "Train a linear layer on the frozen network instead: linear_moco, "
  "linear_simsiam, linear_swav or linear_byol (docs/evaluate.md).",
)
CLASSIFIER = flags.DEFINE_string(
  "classifier",
  None,
  "The directory of a saved classifier, instead of --workdir; for the doctor, "
  "one that finds near duplicates among the images.",
)
flags.DEFINE_multi_string(
  "add_class",
  [],
  "NAME=DIR: a class to add without training, and its images.",
)
flags.DEFINE_enum(
  "head",
  "soft_nn",
  ["soft_nn", "finetuned"],
  "The head that decides: the run's own (the vote of the labelled images, or a "
  "class head where its method trains one), or the one that --task=finetune "
  "has made.",
)
flags.DEFINE_enum(
  "layer",
  "projection",
  ["projection", "features"],
  "What the embeddings are: the output of the projection head, which the vote "
  "compares (of a fine-tuned classifier: what its head reads), or the features "
  "of the network below it.",
)
flags.DEFINE_string(
  "output",
  None,
  "Where to write. Default: a place in --workdir, which is shown.",
)
flags.DEFINE_list(
  "targets",
  ["stablehlo"],
  "Some of stablehlo, savedmodel, torch, onnx, with commas.",
)
flags.DEFINE_string(
  "compare_to",
  None,
  "Another run's directory, or a recipe with reference curves, e.g. "
  "quickstart: drawn into the figure behind this run's curves.",
)
COORDINATOR = flags.DEFINE_string(
  "coordinator_address",
  None,
  "HOST:PORT of process 0, for a run of several processes. On Cloud TPU, GKE, "
  "SLURM and Open MPI, and with torchrun's variables, this and the next two "
  "are found.",
)
NUM_PROCESSES = flags.DEFINE_integer(
  "num_processes", None, "Number of processes of the run."
)
PROCESS_ID = flags.DEFINE_integer(
  "process_id", None, "Number of this process, from 0."
)
CACHE = flags.DEFINE_string(
  "compilation_cache",
  None,
  "Directory for compiled programs, so that the next start need not compile "
  "them; empty: keep none. Default: $JAX_COMPILATION_CACHE_DIR, or "
  "paws_jax/compiled in the user's cache directory.",
)
TIMEOUT = flags.DEFINE_integer(
  "startup_timeout", 300, "Seconds to wait for the other processes.", 1
)


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line, fields of the recipe included.

  Exits with status 2 and one line when it is wrong. Libraries log only
  warnings, unless --verbosity asks for more.
  """
  argv = _with_task(argv)
  try:
    shown = help_lib.answer(argv)
    if shown is not None:
      print(shown)
      sys.exit(0)
    rest = config_flag.parse(_with_stored_recipe(_with_new_names(argv)))
  except errors.UserError as error:
    sys.exit(fail(error, 2))
  if flags.FLAGS["verbosity"].using_default_value:
    logging.set_verbosity(logging.WARNING)
  return rest


def _with_task(argv: Sequence[str]) -> list[str]:
  """Makes --task of the name of a task that comes first."""
  program, *arguments = argv
  if arguments and arguments[0] in (*commands.TASKS, *_FORMER_TASKS):
    arguments[0] = f"--task={arguments[0]}"
  return [program, *arguments]


def _with_new_names(argv: Sequence[str]) -> list[str]:
  """Replaces former names of tasks and flags, with one line of notice each."""
  renamed, previous = [], ""
  for argument in argv:
    name, equals, value = argument.partition("=")
    flag = name.lstrip("-")
    if name.startswith("-") and flag in _FORMER_FLAGS:
      flag = _FORMER_FLAGS[flag]
      print(f"notice: {name} is now --{flag}; both work", file=sys.stderr)
      argument = f"--{flag}{equals}{value}"
    elif flag == "task" and value in _FORMER_TASKS:
      argument = f"--task={_new_task(value)}"
    elif previous in ("--task", "-task") and argument in _FORMER_TASKS:
      argument = _new_task(argument)
    renamed.append(argument)
    previous = argument
  return renamed


def _new_task(former: str) -> str:
  task = _FORMER_TASKS[former]
  print(
    f"notice: --task={former} is now --task={task}; both work", file=sys.stderr
  )
  return task


def _with_stored_recipe(argv: list[str]) -> list[str]:
  """Names the recipe of a run whose fields are changed without --config.

  Raises:
    UserError: fields are given, but no recipe and no run that has one.
  """
  fields = any(re.match(r"--?(no)?config\.", argument) for argument in argv)
  if not fields or config_flag.flag_value(argv, "config") is not None:
    return argv
  task = config_flag.flag_value(argv, "task")
  workdir = config_flag.flag_value(argv, "workdir")
  if not _reads_recipe(task) or not workdir:
    raise errors.InputError(_no_recipe(task))
  from paws_jax.runs import recipe as recipe_lib

  # It has to be there.
  recipe_lib.load(workdir)
  return [argv[0], f"--config={workdir}/{recipe_lib.RECIPE}", *argv[1:]]


def _reads_recipe(task: str | None) -> bool:
  return task in commands.TASKS and commands.TASKS[task].reads_recipe


def _no_recipe(task: str | None) -> str:
  """Returns the message about a recipe that is missing."""
  message = (
    "--config is missing: give a recipe, e.g. --config=quickstart, or another "
    "of --list"
  )
  if _reads_recipe(task):
    message += ", or the directory of a run with --workdir"
  return message


def check_options() -> None:
  """Refuses flags of another task, and a flag that is missing.

  Raises:
    InputError: naming the flag and the task.
  """
  known = {name for task in commands.TASKS.values() for name in task.flags}
  mine = commands.TASKS[TASK.value].flags
  for name in sorted(known.difference(mine)):
    if flags.FLAGS[name].present:
      tasks = [
        task for task, entry in commands.TASKS.items() if name in entry.flags
      ]
      raise errors.InputError(
        f"--{name} is read by --task={' and '.join(tasks)} only, and the task "
        f"is {TASK.value}: leave one of them out"
      )
  if TASK.value == "plan" and MACHINE.value is None:
    raise errors.InputError(
      "--machine is missing, for which --task=plan compiles: give one, e.g. "
      "--machine=h100:8 or --machine=v5e:8x8"
    )


def recipe() -> ml_collections.ConfigDict | None:
  """Finds the recipe on the command line or in the directory of a run.

  Returns:
    The recipe; None when --classifier takes its place.

  Raises:
    InputError: there is none.
    WorkdirError: the run's own cannot be read.
  """
  if CONFIG.value is not None:
    return CONFIG.value
  if CLASSIFIER.value and _reads_recipe(TASK.value):
    return None
  if _reads_recipe(TASK.value) and WORKDIR.value:
    from paws_jax.runs import recipe as recipe_lib

    return recipe_lib.load(WORKDIR.value)
  raise errors.InputError(_no_recipe(TASK.value))


def unknown_arguments(arguments: Sequence[str]) -> str:
  """Says why arguments that are no flags are refused."""
  message = f"unknown arguments: {' '.join(arguments)}"
  first = arguments[0]
  if TASK.present:
    return (
      f"{message}: after the task, give flags, as --NAME=VALUE; "
      f"`paws-jax {TASK.value} --help` shows them"
    )
  if first in commands.TASKS:
    return f"{message}: the task comes first, as in paws-jax {first} --config=X"
  similar = difflib.get_close_matches(first, commands.TASKS, n=1)
  if similar:
    return f"{message}: did you mean the task {similar[0]}?"
  return f"{message}: {first} is no task; tasks are {', '.join(commands.TASKS)}"


def train_command(argv: Sequence[str]) -> str:
  """Makes the command that trains out of the command line of another task."""
  program, *arguments = _with_task(argv)
  kept, skip = [], False
  for argument in arguments:
    if not skip and not re.fullmatch(_NOT_TRAINING, argument):
      kept.append(argument)
    # "--task doctor" is also allowed.
    skip = re.fullmatch("--?(task|classifier)", argument) is not None
  installed = pathlib.Path(program).stem == "paws-jax"
  command = "paws-jax" if installed else "python -m paws_jax.main"
  return f"{command} {shlex.join(kept)}"


def workdir() -> str:
  """The directory of the run: --workdir, or one named after the recipe.

  For --config=configs/imagenet.py:1pct it is runs/imagenet-1pct; "" where
  neither is given.
  """
  if WORKDIR.value or CONFIG.value is None:
    return WORKDIR.value or ""
  config_path = config_flags.get_config_filename(flags.FLAGS["config"])
  if str(config_path).endswith(".json"):
    # A run has stored it: in its directory.
    return str(config_path).rpartition("/")[0] or "."
  path, _, variant = str(config_path).partition(":")
  name = pathlib.Path(path).stem
  if variant:
    name += f"-{variant.replace(',', '-')}"
  return str(pathlib.Path("runs") / name)


def fail(error: Exception | str, status: int) -> int:
  """Prints an error; returns the status to exit with."""
  print(f"error: {error}", file=sys.stderr)
  return status
