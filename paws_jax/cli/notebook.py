"""For notebooks: tasks in a process of their own, whose lines are shown."""

from __future__ import annotations

import subprocess
import sys


def run(*arguments: str) -> None:
  """Runs `python -m paws_jax.main` and shows what it prints, as it comes.

  In a process of its own, so that it finds the devices as on a command line and
  gives its memory back.

  Args:
    *arguments: of the command line.

  Raises:
    RuntimeError: when it ends with a status other than 0.
  """
  command = [sys.executable, "-u", "-m", "paws_jax.main", *arguments]
  with subprocess.Popen(
    command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
  ) as process:
    try:
      for line in process.stdout:
        print(line, end="", flush=True)
    except KeyboardInterrupt:
      # It has been interrupted, too: it saves and stops.
      print(process.stdout.read(), end="")
  if process.returncode:
    raise RuntimeError(
      f"python -m paws_jax.main {' '.join(arguments)} ended with status "
      f"{process.returncode}; its last lines say why."
    )
