"""Prints whether the run in a workdir is finished or was only stopped.

A run that is stopped by a signal saves and exits with status 0, as a finished
one does. A script that restarts jobs must distinguish the two:

  python launch/finished.py gs://bucket/run   # 0: finished; 3: not finished

A finished run has a result of at least as many steps as its last checkpoint. A
run that was finished, continued with more `train.epochs` and then stopped has a
checkpoint of more steps.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from etils import epath

FINISHED, UNREADABLE, USAGE, UNFINISHED = 0, 1, 2, 3


def is_finished(workdir: str) -> bool:
  """Returns whether pre-training in a directory, local or gs://, is finished.

  Raises:
    ValueError: results.json is not a list of objects.
    OSError: the directory cannot be read.
  """
  directory = epath.Path(workdir)
  results = directory / "results.json"
  if not results.exists():
    return False
  try:
    rows = json.loads(results.read_bytes())
  except (ValueError, RecursionError) as error:
    raise ValueError(
      f"{results} is not JSON ({error}): move it away."
    ) from None
  if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
    raise ValueError(f"{results} is not a JSON list of objects: move it away.")
  steps = [row.get("steps") for row in rows if row.get("task") == "pretrain"]
  last = _last_checkpoint(directory)
  return any(type(step) is int and step >= last for step in steps)


def _last_checkpoint(directory: epath.Path) -> int:
  checkpoints = directory / "checkpoints"
  if not checkpoints.exists():
    return 0
  names = [path.name for path in checkpoints.iterdir()]
  return max((int(name) for name in names if name.isdigit()), default=0)


def main(argv: Sequence[str]) -> int:
  """Returns the exit status."""
  if len(argv) != 2 or argv[1].startswith("-"):
    print("usage: python launch/finished.py WORKDIR", file=sys.stderr)
    return USAGE
  if not (epath.Path(argv[1]) / "config.json").exists():
    print(f"{argv[1]}: there is no run")
    return UNFINISHED
  try:
    finished = is_finished(argv[1])
  except (OSError, ValueError) as error:
    print(f"error: {error}", file=sys.stderr)
    return UNREADABLE
  print(f"{argv[1]}: {'finished' if finished else 'not finished yet'}")
  return FINISHED if finished else UNFINISHED


if __name__ == "__main__":
  sys.exit(main(sys.argv))
