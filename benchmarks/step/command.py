"""What step.py and convolutions.py share: `--slice`, and PyTorch."""

from __future__ import annotations

import importlib.util
import os

from absl import flags

from benchmarks import recipe_command
from benchmarks import slices
from benchmarks import timing

# So that --help shows it.
flags.adopt_module_key_flags(recipe_command)
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
