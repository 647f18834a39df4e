"""What stands on a command line; `main_test` and others parse whole ones."""

import sys

import pytest
from absl import flags
from ml_collections import config_flags

from paws_jax.cli import config_flag

# ml_collections' way to load a recipe.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module")


@pytest.mark.parametrize(
  ("arguments", "found"),
  [
    ([], None),
    (["--config=a.py:b"], "a.py:b"),
    (["-config", "a.py", "--x"], "a.py"),
    (["--x=1", "--config="], ""),
    (["--config"], ""),
    (["--config.train.epochs=3", "--configs=a"], None),
    (["--config=first.py", "--config=second.py"], "second.py"),
  ],
)
def test_flag_value(arguments, found):
  assert config_flag.flag_value(["main.py", *arguments], "config") == found


@pytest.mark.parametrize(
  ("arguments", "epochs", "minutes"),
  [
    ((), 2, 0.0),
    (("--config.train.minutes=2.5",), 0, 2.5),
    (("--config.train.minutes", "3"), 0, 3.0),
    (("--config.train.minutes=0",), 2, 0.0),
    (("--config.train.epochs=5",), 5, 0.0),
    # What is refused, both of them and a text, is left as it is.
    (("--config.train.minutes=2", "--config.train.epochs=5"), 5, 2.0),
  ],
)
def test_one_length_of_a_run_takes_the_place_of_the_other(
  monkeypatch, arguments, epochs, minutes
):
  found = _parse(monkeypatch, "tests/tiny_recipe.py", *arguments).train
  assert (found.epochs, found.minutes) == (epochs, minutes)


def test_epochs_take_the_place_of_the_minutes_of_a_recipe(
  monkeypatch, tmp_path
):
  recipe = tmp_path / "recipe.py"
  recipe.write_text(
    "from tests import tiny_recipe\n"
    "def get_config():\n"
    "  config = tiny_recipe.get_config()\n"
    "  config.train.epochs, config.train.minutes = 0, 4.0\n"
    "  return config\n"
  )
  found = _parse(monkeypatch, str(recipe), "--config.train.epochs=5").train
  assert (found.epochs, found.minutes) == (5, 0.0)
  found = _parse(monkeypatch, str(recipe)).train
  assert (found.epochs, found.minutes) == (0, 4.0)


def _parse(monkeypatch, recipe, *arguments):
  argv = ["main.py", f"--config={recipe}", *arguments]
  monkeypatch.setattr(sys, "argv", argv)
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=values)
  config_flag.follow_method(values["config"])
  values(argv)
  return values["config"].value
