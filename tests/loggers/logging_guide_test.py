"""docs/logging.md says what there is, and its commands do what it says."""

import pathlib
import re

import pytest

from paws_jax import config as config_lib
from paws_jax.config import log as log_config
from paws_jax.loggers import loggers
from paws_jax.loggers import record
from paws_jax.runs import metrics
from tests import tiny_recipe
from tests.loggers import loggers_test

ROOT = pathlib.Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "logging.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"--config\.log\.writers=(\S+)\n", GUIDE)

services = loggers_test.services


def test_the_table_lists_all_writers_and_their_extras():
  table = re.findall(
    r"^\| `(\w+)` \|.*\| (?:`pip install (\w+)`)? *\|$", GUIDE, re.M
  )
  assert tuple(name for name, _ in table) == log_config.WRITERS
  assert {n: p or "jsonl" for n, p in table} == {n: n for n, _ in table}
  setup = (ROOT / "setup.py").read_text(encoding="utf-8")
  for name in loggers._WRITERS:
    assert f'    "{name}": ["{name}>=' in setup
  assert set(loggers._WRITERS) == {*log_config.WRITERS} - {"jsonl"}


@pytest.mark.parametrize("flag", COMMANDS)
def test_each_command_writes_what_it_names(services, tmp_path, flag):
  config = tiny_recipe.get_config()
  # As the flag is parsed.
  config.log.writers = (flag,)
  name = flag.removeprefix("jsonl,")
  assert config_lib.resolve(config).log.loggers == (name,)
  log = loggers_test.open_log(tmp_path, name)
  log.write(1, {"loss": 0.5})
  log.close(failed=False, done=True)
  if name in services:
    assert services[name].rows == [(1, {"loss": 0.5})]
  else:
    assert any(tmp_path.glob("events.out.tfevents.*"))
  assert (tmp_path / metrics.METRICS).exists()
  assert f"`{record.RECORD}`" in GUIDE


def test_there_are_commands():
  assert sorted(COMMANDS) == [
    "jsonl,mlflow",
    "jsonl,tensorboard",
    "jsonl,wandb",
  ]
