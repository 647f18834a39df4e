"""The flags of `paws_jax.main`: what they are, and what belongs together."""

from __future__ import annotations

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
from paws_jax.cli import config_flag

CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe, e.g. configs/quickstart.py. Any field can be changed on the "
  "command line: --config.train.epochs=50.",
  lock_config=True,
)
WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Directory for checkpoints, metrics and results. Running the same command "
  "again goes on where it stopped. Default: runs/NAME_OF_THE_RECIPE.",
)
TASK = flags.DEFINE_enum(
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
TOPOLOGY = flags.DEFINE_string(
  "topology", None, "Of --task=plan: the machine, e.g. v5e:8x8 or h100:8."
)
flags.DEFINE_string(
  "images",
  None,
  "Of --task=predict: a directory of images, an image, or a CSV file with a "
  "column of paths.",
)
CLASSIFIER = flags.DEFINE_string(
  "classifier",
  None,
  "Of --task=predict and export: a saved classifier's directory, instead of "
  "--workdir.",
)
flags.DEFINE_multi_string(
  "add_class",
  [],
  "Of --task=predict: NAME=DIR, a class to add without training, and its "
  "images; can be repeated.",
)
flags.DEFINE_enum(
  "head",
  "soft_nn",
  ["soft_nn", "finetuned"],
  "Of --task=predict and export: what decides, the vote of the labelled images "
  "or what --task=finetune has made.",
)
flags.DEFINE_string(
  "output",
  None,
  "Of --task=predict, report and export: where to write. Default: a place in "
  "--workdir, which is shown.",
)
flags.DEFINE_list(
  "targets",
  ["stablehlo"],
  "Of --task=export: some of stablehlo, savedmodel, torch, with commas.",
)
COMPARE_TO = flags.DEFINE_string(
  "compare_to",
  None,
  "Of --task=pretrain: another run's directory, or a recipe with reference "
  "curves, e.g. quickstart: drawn into the figure behind this run's curves.",
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


# A task's module and the flags that it takes besides recipe and workdir; the
# module has prepare(config, workdir, **flags) and run(prepared).
MODULES = {
  "pretrain": ("tasks.pretrain", ("compare_to",)),
  "evaluate": ("tasks.evaluate", ()),
  "finetune": ("tasks.finetune", ()),
  "predict": (
    "tasks.predict",
    ("images", "classifier", "add_class", "head", "output"),
  ),
  "report": ("tasks.report", ("output",)),
  "export": ("tasks.export", ("output", "targets", "classifier", "head")),
}
# They work on a run that has its recipe, in one process.
AFTERWARDS = ("predict", "report", "export")
# They find the recipe in the run's directory.
_OF_A_RUN = (*AFTERWARDS, "evaluate", "finetune")


def parse_flags(argv: Sequence[str]) -> list[str]:
  """Parses the command line, a recipe's fields included.

  Exits with status 2 and one line when it is wrong. Libraries log warnings
  only, unless --verbosity asks for more.
  """
  try:
    rest = config_flag.parse(argv)
  except ValueError as error:
    sys.exit(fail(error, 2))
  if flags.FLAGS["verbosity"].using_default_value:
    flags.FLAGS.verbosity = logging.WARNING
  return rest


def check_options() -> None:
  """Refuses flags that another task would read."""
  known = {name for _, names in MODULES.values() for name in names}
  mine = MODULES.get(TASK.value, ("", ()))[1]
  for name in sorted(known.difference(mine)):
    if flags.FLAGS[name].present:
      tasks = [task for task, (_, names) in MODULES.items() if name in names]
      raise errors.InputError(
        f"--{name} is read by --task={' and '.join(tasks)} only, and the task "
        f"is {TASK.value}: leave one of them out"
      )


def recipe() -> ml_collections.ConfigDict | None:
  """The recipe of the command line, or that of a run to go on with.

  None when --classifier stands for both.

  Raises:
    ValueError: when there is none.
  """
  if CONFIG.value is not None:
    return CONFIG.value
  if CLASSIFIER.value:
    return None
  if TASK.value in _OF_A_RUN and WORKDIR.value:
    from paws_jax.runs import recipe as recipe_lib

    return recipe_lib.load(WORKDIR.value)
  after = ", or the run to work on, with --workdir" * (TASK.value in _OF_A_RUN)
  raise errors.InputError(
    "--config is missing: give a recipe, e.g. --config=configs/quickstart.py"
    f"{after}"
  )


def train_command(arguments: Sequence[str]) -> str:
  """The command with these arguments, but --task."""
  kept, skip = [], False
  for argument in arguments:
    if not skip and not re.fullmatch("--?task(=.*)?", argument):
      kept.append(argument)
    # "--task doctor" is allowed, too.
    skip = argument in ("--task", "-task")
  return f"python -m paws_jax.main {shlex.join(kept)}"


def recipe_name() -> str:
  """Gives "imagenet-1pct" for --config=configs/imagenet.py:1pct."""
  path, _, variant = _config_path().partition(":")
  name = pathlib.Path(path).stem
  return f"{name}-{variant.replace(',', '-')}" if variant else name


def _config_path() -> str:
  return str(config_flags.get_config_filename(flags.FLAGS["config"]))


def fail(error: Exception | str, status: int) -> int:
  """Prints an error; returns the status to exit with."""
  print(f"error: {error}", file=sys.stderr)
  return status
