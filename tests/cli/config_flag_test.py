"""What stands on a command line; `main_test` and others parse whole ones."""

import pytest

from paws_jax.cli import config_flag


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
