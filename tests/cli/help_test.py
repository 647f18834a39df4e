"""--help, --list and --version, and the short form of a task."""

import subprocess
import sys

import pytest

import paws_jax
from paws_jax import errors
from paws_jax.cli import commands
from paws_jax.cli import flags as flags_lib
from paws_jax.cli import help as help_lib
from paws_jax.config import recipe_files


def test_version():
  assert (
    help_lib.answer(["p", "--version"]) == f"paws_jax {paws_jax.__version__}"
  )


def test_list():
  lines = help_lib.answer(["p", "--list"]).splitlines()
  assert [line.split()[0] for line in lines] == recipe_files.names()


def test_a_task_is_no_question():
  assert help_lib.answer(["p", "--config=quickstart", "--task=plan"]) is None


def test_overview_names_tasks_and_the_flags_of_all():
  text = help_lib.answer(["p", "--help"])
  assert all(f"\n  {name} " in text for name in commands.TASKS)
  assert "--workdir" in text
  assert "--images" not in text


@pytest.mark.parametrize("name", commands.TASKS)
def test_help_of_a_task_names_its_flags_and_an_example(name):
  entry = commands.TASKS[name]
  text = help_lib.answer(["p", f"--task={name}", "-help"])
  assert f"paws-jax {name} {entry.example}" in text
  for flag in ("config", "workdir", *entry.flags):
    assert f"\n  --{flag} " in text


@pytest.mark.parametrize(
  "arguments",
  [
    ["--list", "foo"],
    ["foo", "--list"],
    ["--version", "foo"],
    ["--help", "foo"],
    ["--task=predict", "foo", "--help"],
    ["--config=quickstart", "foo", "-h"],
  ],
)
def test_arguments_more_are_refused(arguments):
  with pytest.raises(
    errors.InputError, match=r"^unknown arguments: foo: leave"
  ):
    help_lib.answer(["p", *arguments])


def test_values_of_flags_and_tasks_are_no_arguments_more():
  for arguments in (
    ["--config", "quickstart", "--help"],
    ["--help", "--workdir", "foo"],
  ):
    assert help_lib.answer(["p", *arguments]) == help_lib.overview()
  for arguments in (["--help", "predict"], ["--task", "predict", "--help"]):
    assert help_lib.answer(["p", *arguments]) == help_lib.task("predict")


def test_a_flag_that_may_be_repeated_says_so():
  text = " ".join(help_lib.task("predict").split())
  assert (
    "NAME=DIR: a class to add without training, and its images; may" in text
  )


def test_lines_fit_a_terminal():
  texts = [help_lib.overview(), *map(help_lib.task, commands.TASKS)]
  assert max(len(line) for text in texts for line in text.splitlines()) <= 80


def test_examples_are_valid_commands():
  """Each is parsed as a command line is, and its flags belong to the task."""
  code = (
    "from absl import flags\n"
    "from paws_jax.cli import commands, flags as flags_lib\n"
    "for name, task in commands.TASKS.items():\n"
    "  flags.FLAGS.unparse_flags()\n"
    "  for flag in flags_lib.flags.FLAGS:\n"
    "    flags.FLAGS[flag].unparse()\n"
    "  rest = flags_lib.parse_flags(['main', name, *task.example.split()])\n"
    "  assert rest == ['main'], rest\n"
    "  assert flags_lib.TASK.value == name\n"
    "  flags_lib.check_options()\n"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=False
  )
  assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
  ("typed", "parsed"),
  [
    (
      ["doctor", "--config=quickstart"],
      ["--task=doctor", "--config=quickstart"],
    ),
    (["topology"], ["--task=topology"]),
    (["--config=quickstart", "doctor"], ["--config=quickstart", "doctor"]),
    ([], []),
  ],
)
def test_a_task_may_come_first(typed, parsed):
  assert flags_lib._with_task(["main.py", *typed]) == ["main.py", *parsed]
