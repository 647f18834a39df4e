"""What step.py and convolutions.py share: a recipe or a slice, and PyTorch."""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
from collections.abc import Callable

import ml_collections
import slices
import timing
from absl import app
from absl import flags
from absl import logging
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
  "config",
  None,
  "The recipe, e.g. configs/quickstart.py; any field can be changed: "
  "--config.train.batch_size=64.",
  lock_config=True,
)
SLICE = flags.DEFINE_enum(
  "slice",
  None,
  list(slices.SLICES),
  "Instead of --config: a part of a recipe, on random images.",
)
PEER = flags.DEFINE_enum(
  "peer",
  "auto",
  ["auto", "torch", "none"],
  "What to compare with; auto: PyTorch if it is installed.",
)


def start(run: Callable[[ml_collections.ConfigDict], int]) -> None:
  """Parses the flags, calls `run` with the recipe, exits with its status.

  With status 2 and a line where an input is wrong.
  """
  app.run(functools.partial(_main, run), flags_parser=slices.parse_flags)


def _main(
  run: Callable[[ml_collections.ConfigDict], int], argv: list[str]
) -> int:
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  if CONFIG.value is None:
    raise app.UsageError(
      "--config is missing: give a recipe, e.g. --config=configs/quickstart.py"
      f", or --slice={'|'.join(slices.SLICES)}"
    )
  # Of JAX, about platforms that are not there.
  logging.set_verbosity(logging.WARNING)
  try:
    return run(CONFIG.value)
  except (ValueError, TypeError, OSError) as error:
    print(f"error: {error}", file=sys.stderr)
    return 2


def peer_wanted(*, required: bool = False) -> bool:
  """Whether to run PyTorch; says so if it is missing.

  Args:
    required: as with --peer=torch.

  Raises:
    ValueError: it is missing but asked for.
  """
  if PEER.value == "none":
    return False
  if importlib.util.find_spec("torch") is not None:
    return True
  if PEER.value == "torch" or required:
    raise ValueError(
      "PyTorch is not installed: pip install torch, or --peer=none."
    )
  print("peer: PyTorch is not installed, nothing to compare with")
  return False


def print_setting(with_peer: bool) -> None:
  """Devices and versions, that every number must be quoted with."""
  versions = {}
  if with_peer:
    import torch

    versions["torch"] = (
      f"{torch.__version__} ({torch.get_num_threads()} threads, "
      f"OMP_WAIT_POLICY={os.getenv('OMP_WAIT_POLICY', 'unset')})"
    )
  timing.print_setting(**versions)
