"""Standard output that never ends a run."""

from __future__ import annotations

import os
import sys
from typing import Any


class Output:
  """A text stream that writes into the void once its reader has gone.

  A closed pipe or terminal must not end a run of days.
  """

  def __init__(self, stream: Any):
    """Takes over `stream`, None in a process that was started without one."""
    # The file takes the free descriptor, which no other file then gets.
    self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

  def write(self, text: str) -> int:
    """Writes, and flushes whole lines, so that log files are never behind."""
    self._try(lambda stream: stream.write(text))
    if "\n" in text:
      self.flush()
    return len(text)

  def flush(self) -> None:
    """Flushes."""
    self._try(lambda stream: stream.flush())

  def isatty(self) -> bool:
    """Whether a line can be rewritten in place."""
    return self._stream.isatty()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def _try(self, action: Any) -> None:
    try:
      action(self._stream)
    except OSError:
      # What the stream still holds would fail once more when Python exits.
      void = os.open(os.devnull, os.O_WRONLY)
      os.dup2(void, self._stream.fileno())
      os.close(void)


def silence_output() -> None:
  """Sends standard output nowhere, for the processes that have no say."""
  sys.stdout = Output(None)


def protect_output() -> None:
  """Makes standard output and error `Output`s."""
  sys.stdout = Output(sys.stdout)
  sys.stderr = Output(sys.stderr)
