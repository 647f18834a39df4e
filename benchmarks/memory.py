"""What keeping the memory that a step frees brings on a CPU.

  python benchmarks/memory.py --recipe=configs/quickstart.py

Runs benchmarks/step.py in processes that take turns, with and without
`allocator.keep_freed_memory`, and prints

  ratio: seconds per whole step without / with it

so above 1 keeping memory is faster.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys

import timing
from absl import app
from absl import flags

_RECIPE = flags.DEFINE_string(
  "recipe", "configs/quickstart.py", "The recipe whose step is measured."
)
_TURNS = flags.DEFINE_integer(
  "turns", 3, "Processes of each kind.", lower_bound=1
)
_STEPS = flags.DEFINE_integer("steps", 20, "Steps in a window.", lower_bound=1)
_STEP = pathlib.Path(__file__).with_name("step.py")
_SECONDS = re.compile(r"whole step: .*seconds per step ([0-9.e+-]+),")
_KINDS = ("nokeep_memory", "keep_memory")


def main(argv: list[str]) -> int:
  """Measures what the flags ask for; returns the exit status."""
  if len(argv) > 1:
    raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
  seconds = {kind: [] for kind in _KINDS}
  for turn in range(_TURNS.value):
    for kind in _KINDS:
      try:
        found = _measure(kind)
      except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
      seconds[kind].append(found)
      print(f"turn {turn + 1}: --{kind}: {found:.4g} s per step", flush=True)
  returned, kept = (seconds[kind] for kind in _KINDS)
  print(f"ratio: {timing.ratio(kept, returned):.2f}")
  return 0


def _measure(kind: str) -> float:
  """Median seconds per whole step in a process of its own.

  Raises:
    RuntimeError: when it fails.
  """
  done = subprocess.run(
    [
      sys.executable,
      str(_STEP),
      f"--config={_RECIPE.value}",
      f"--steps={_STEPS.value}",
      "--peer=none",
      f"--{kind}",
    ],
    capture_output=True,
    text=True,
    env={**os.environ, "JAX_PLATFORMS": "cpu"},
  )
  found = _SECONDS.search(done.stdout)
  if done.returncode or found is None:
    raise RuntimeError(
      f"benchmarks/step.py ended with status {done.returncode}:\n"
      f"{done.stderr.strip() or done.stdout.strip()}"
    )
  return float(found[1])


if __name__ == "__main__":
  app.run(main)
