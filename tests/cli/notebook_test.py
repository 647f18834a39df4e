"""Tasks of a notebook: their lines are shown, their failure is one."""

import pytest

from paws_jax.cli import notebook


def test_lines_are_shown(capsys):
  notebook.run("--config=tests/tiny_recipe.py", "--task=devices")
  assert "devices" in capsys.readouterr().out


def test_a_failure_is_not_overlooked(capsys):
  with pytest.raises(RuntimeError, match=r"--task=report ended with status 2"):
    notebook.run("--task=report")
  assert "--config is missing" in capsys.readouterr().out
