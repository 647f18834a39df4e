"""The command line: `python -m paws_jax.main --config=configs/quickstart.py`.

Tasks import what they need when they run, so that `--help` answers at once.
"""

from __future__ import annotations

import pathlib
import sys

from absl import app, flags
from ml_collections import config_flags

_CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe, e.g. configs/quickstart.py. Any field can be changed on the "
  "command line: --config.train.epochs=50.",
  lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
  "workdir",
  None,
  "Directory for checkpoints, metrics and results. Running the same command "
  "again goes on where it stopped. Default: runs/NAME_OF_THE_RECIPE.",
)
_TASK = flags.DEFINE_enum(
  "task", "pretrain", ["pretrain"], "What to do with the recipe."
)


def main(argv: list[str]) -> int:
  """Dispatches on --task; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  if _CONFIG.value is None:
    raise app.UsageError(
      "--config is missing: give a recipe, e.g. --config=configs/quickstart.py"
    )
  workdir = _WORKDIR.value or str(pathlib.Path("runs") / _recipe_name())
  return _pretrain(workdir)


def _pretrain(workdir: str) -> int:
  from paws_jax import checkpoint, pretrain, train

  try:
    prepared = pretrain.prepare(_CONFIG.value, workdir)
  except (ValueError, TypeError, FileNotFoundError) as error:
    return _fail(error, 2)
  try:
    return pretrain.run(prepared)
  except (
    train.NonFiniteError,
    checkpoint.CheckpointError,
    MemoryError,
  ) as error:
    return _fail(error, 1)


def _recipe_name() -> str:
  """ "imagenet-1pct" for --config=configs/imagenet.py:1pct."""
  path, _, variant = str(
    config_flags.get_config_filename(flags.FLAGS["config"])
  ).partition(":")
  name = pathlib.Path(path).stem
  return f"{name}-{variant.replace(',', '-')}" if variant else name


def _fail(error: Exception, status: int) -> int:
  print(f"error: {error}", file=sys.stderr)
  return status


if __name__ == "__main__":
  app.run(main)
