"""Former names of tasks and flags, and arguments that are none."""

import re
import types

import pytest

from paws_jax.cli import flags

TASK = "notice: --task=topology is now --task=devices; both work\n"


@pytest.mark.parametrize(
  ("former", "now", "notice"),
  [
    (["--task=topology"], ["--task=devices"], TASK),
    (["-task=topology"], ["--task=devices"], TASK),
    (["--task", "topology"], ["--task", "devices"], TASK),
    (
      ["--topology=h100:8"],
      ["--machine=h100:8"],
      "notice: --topology is now --machine; both work\n",
    ),
    (
      ["-topology", "h100:8", "--task=plan"],
      ["--machine", "h100:8", "--task=plan"],
      "notice: -topology is now --machine; both work\n",
    ),
    (
      ["--workdir=topology", "topology"],
      ["--workdir=topology", "topology"],
      "",
    ),
  ],
)
def test_former_names_still_work(former, now, notice, capsys):
  assert flags._with_new_names(["main.py", *former]) == ["main.py", *now]
  captured = capsys.readouterr()
  assert captured.err == notice
  assert captured.out == ""


@pytest.mark.parametrize(
  ("task", "arguments", "words"),
  [
    (
      None,
      ["foo", "bar"],
      r": foo bar: foo is no task; tasks are pretrain, ev",
    ),
    (None, ["predct"], r": predct: did you mean the task predict\?"),
    (None, ["predict"], r": predict: the task comes first, as in paws-jax pr"),
    (
      "embed",
      ["extra"],
      r": extra: after the task, .* `paws-jax embed --help`",
    ),
    ("embed", ["predict"], r"after the task, give flags, as --NAME=VALUE"),
  ],
)
def test_unknown_arguments(monkeypatch, task, arguments, words):
  given = types.SimpleNamespace(present=task is not None, value=task)
  monkeypatch.setattr(flags, "TASK", given)
  assert re.search(words, flags.unknown_arguments(arguments))
