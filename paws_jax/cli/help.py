"""The answers of `--help`, `--list` and `--version`."""

from __future__ import annotations

import itertools
import re
import textwrap
from collections.abc import Sequence

from absl import flags

import paws_jax
from paws_jax import errors
from paws_jax.cli import commands
from paws_jax.cli import config_flag
from paws_jax.config import recipe_files

_WIDTH = 80
_HELP = ("-help", "-h", "-?")


def answer(argv: Sequence[str]) -> str | None:
  """The text that a command line asks for; None: it asks for a task.

  Raises:
    InputError: there is an extra argument that is not a flag.
  """
  arguments = {argument.replace("--", "-", 1) for argument in argv[1:]}
  asked = arguments & {"-version", "-list", *_HELP}
  if not asked:
    return None
  name = config_flag.flag_value(argv, "task")
  for before, argument in itertools.pairwise(argv):
    # After another flag it may be its value.
    flag = before.startswith("-") and "=" not in before
    if flag and before.replace("--", "-", 1) not in asked:
      continue
    if argument in commands.TASKS:
      name = argument
    elif not argument.startswith("-"):
      raise errors.InputError(
        f"unknown arguments: {argument}: leave it out, or see paws-jax --help"
      )
  if "-version" in asked:
    return f"paws_jax {paws_jax.__version__}"
  if "-list" in asked:
    return recipes()
  return task(name) if name in commands.TASKS else overview()


def recipes() -> str:
  """One line for each recipe: its name and the first line of its docstring."""
  summaries = recipe_files.summaries()
  width = max(map(len, summaries))
  return "\n".join(
    f"{name:{width}}  {summary}" for name, summary in summaries.items()
  )


def overview() -> str:
  """Tasks with one line each, and the flags of all."""
  summaries = {name: task.summary for name, task in commands.TASKS.items()}
  shared = [name for name in _own_flags() if not _readers(name)]
  return "\n".join(
    [
      "Semi-supervised image classification with PAWS and related methods.",
      "",
      "  paws-jax [TASK] --config=RECIPE [--config.SECTION.FIELD=VALUE ...]",
      "  paws-jax TASK --workdir=DIRECTORY",
      "",
      "Tasks (default: pretrain; `paws-jax TASK --help` shows its flags):",
      _table(summaries),
      "",
      "Flags of every task (--helpfull: those of libraries, too):",
      _flag_table(shared),
    ]
  )


def task(name: str) -> str:
  """What a task does, an example, and the flags that only some tasks take."""
  entry = commands.TASKS[name]
  return "\n".join(
    [
      entry.summary,
      "",
      f"  paws-jax {name} {entry.example}",
      "",
      _flag_table(["config", "workdir", *entry.flags]),
      "",
      "`paws-jax --help` shows all tasks and the flags of every task.",
    ]
  )


def _own_flags() -> list[str]:
  by_module = flags.FLAGS.flags_by_module_dict()
  return [flag.name for flag in by_module["paws_jax.cli.flags"]]


def _readers(name: str) -> list[str]:
  return [task for task, entry in commands.TASKS.items() if name in entry.flags]


def _flag_table(names: Sequence[str]) -> str:
  rows = {f"--{name}": flags.FLAGS[name].help or "" for name in names}
  # absl's own words follow a period and a semicolon.
  repeated = re.compile(r"\.;\s*repeat this option.*", re.DOTALL)
  return _table(
    {
      name: repeated.sub("; may be repeated.", text)
      for name, text in rows.items()
    }
  )


def _table(rows: dict[str, str]) -> str:
  """Two columns, the second wrapped."""
  indent = 4 + max(map(len, rows), default=0)
  lines = [
    textwrap.fill(
      " ".join(text.split()),
      _WIDTH,
      initial_indent=f"  {name}".ljust(indent),
      subsequent_indent=" " * indent,
    )
    for name, text in rows.items()
  ]
  return "\n".join(lines)
