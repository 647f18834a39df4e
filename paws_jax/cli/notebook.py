"""Tasks for notebooks, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys


def run(*arguments: str) -> None:
  """Runs `python -m paws_jax.main` and shows its output line by line.

  A process of its own finds the devices as on a command line, and frees its
  memory at the end.

  Args:
    *arguments: arguments of the command line.

  Raises:
    RuntimeError: the command exits with a status other than 0.
  """
  command = [sys.executable, "-u", "-m", "paws_jax.main", *arguments]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  ) as process:
    output = process.stdout
    assert output is not None
    try:
      for line in output:
        print(line, end="", flush=True)
    except KeyboardInterrupt:
      # The process is interrupted, too: it saves and stops.
      print(output.read(), end="")
  if process.returncode:
    raise RuntimeError(
      f"python -m paws_jax.main {' '.join(arguments)} ended with status "
      f"{process.returncode}; its last lines say why."
    )
