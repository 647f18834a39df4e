"""Former names of tasks and flags."""

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
