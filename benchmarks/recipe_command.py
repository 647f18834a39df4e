"""The flag `--config` of a script that measures a recipe, and how it ends."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

import ml_collections
from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

from benchmarks import slices
from paws_jax.cli import config_flag

CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe, e.g. configs/quickstart.py; any field can be changed: "
  "--config.train.batch_size=64.",
  lock_config=True,
)
config_flag.follow_method(flags.FLAGS["config"])


def start(run: Callable[[ml_collections.ConfigDict], int]) -> None:
  """Parses the flags, calls `run` with the recipe, exits with its status.

  With status 2 and a line where an input is wrong.
  """
  app.run(functools.partial(_main, run), flags_parser=slices.parse_flags)


def _main(
  run: Callable[[ml_collections.ConfigDict], int], argv: list[str]
) -> int:
  # Of JAX, about platforms that are not there.
  logging.set_verbosity(logging.WARNING)
  try:
    if len(argv) > 1:
      raise ValueError(f"unknown arguments: {' '.join(argv[1:])}")
    if CONFIG.value is None:
      raise ValueError(_missing())
    return run(CONFIG.value)
  except (ValueError, TypeError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def _missing() -> str:
  """What to say where no recipe is given."""
  names = "|".join(slices.SLICES)
  instead = f", or --slice={names}" if "slice" in flags.FLAGS else ""
  return (
    "--config is missing: give a recipe, e.g. --config=configs/quickstart.py"
    f"{instead}"
  )
