"""Every command of README.md runs as it stands, and every page is true.

Commands run in a directory of their own with the recipes beside them, where
`python` is that of the tests.
"""

import collections
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from absl import flags
from PIL import Image

from paws_jax import config as config_lib
from paws_jax.cli import config_flag
from paws_jax.cli import flags as flags_lib
from tests import golden_run
from tests import processes
from tests import random_classifier
from tests import small_runs

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)

# Commands that are not run, and why. Their flags and recipe are checked.
NOT_RUN = {
  "make quickstart": "installs from the network; its command is run below",
  "make test": "is what runs this test",
  "python3 -m venv .venv": "the tests have an environment",
  '.venv/bin/python -m pip install -e ".[dev]"': "installs from the network",
  ".venv/bin/python -m pytest -n auto --dist loadfile": "runs this test",
  "python -m paws_jax.main --config=configs/fashion_mnist.py:40 "
  "--workdir=runs/f40 --config.data.split_seed=3 --config.train.epochs=50": (
    "needs the files of Fashion-MNIST, and hours on a CPU"
  ),
}
# How long a command may take on a busy machine, in seconds.
_SECONDS = 900


def _commands():
  """All commands, in order, each on one line without its comment."""
  shell = [text for language, text in _BLOCKS if not language]
  lines = "".join(shell).replace("\\\n", " ").splitlines()
  commands = [re.sub(r"\s+", " ", line.split(" #")[0]).strip() for line in lines]
  return [c for c in commands if re.match(r"(make|\S*python3?) ", c)]


def _main_arguments(command):
  """The arguments of paws_jax.main; None: the command is another one."""
  words = shlex.split(command)
  if words[1:3] != ["-m", "paws_jax.main"]:
    return None
  return words[3:]
