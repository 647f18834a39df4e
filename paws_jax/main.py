"""Semi-supervised image classification with PAWS.

python -m paws_jax.main --config=configs/quickstart.py

The same as `python -m paws_jax`, and as `paws-jax` where it is installed.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import app
from absl import flags

from paws_jax.cli import dispatch
from paws_jax.cli import flags as flags_lib

# `--help` lists these flags first.
flags.adopt_module_key_flags(flags_lib)


def main(argv: Sequence[str]) -> int:
  """Runs --task; returns the exit status."""
  return dispatch.run(argv)


def run() -> None:
  """Runs the command line of this process and exits."""
  app.run(main, flags_parser=flags_lib.parse_flags)


if __name__ == "__main__":
  run()
