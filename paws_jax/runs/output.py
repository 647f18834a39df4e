"""Standard output and error that survive a closed pipe, and any file name."""

from __future__ import annotations

import os
import sys
from typing import Any


class Output:
  """A text stream that takes any text, also once the reader has closed it.

  Neither a closed pipe or terminal nor a file name that the terminal's encoding
  does not have must end a long run.
  """

  def __init__(self, stream: Any):
    """Wraps `stream`, which is None in a process that started without one."""
    # The file occupies the free descriptor, so that no other file gets it.
    self._stream = stream or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115

  def write(self, text: str) -> int:
    """Writes text; flushes at the end of a line, so that logs are current."""
    self._try(lambda stream: _write(stream, text))
    if "\n" in text:
      self.flush()
    return len(text)

  def flush(self) -> None:
    """Flushes the stream, unless it is closed."""
    self._try(lambda stream: stream.flush())

  def isatty(self) -> bool:
    """Returns whether a line can be rewritten in place."""
    return self._stream.isatty()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)

  def _try(self, action: Any) -> None:
    try:
      action(self._stream)
    except OSError:
      # Buffered text would fail again when Python exits.
      null = os.open(os.devnull, os.O_WRONLY)
      os.dup2(null, self._stream.fileno())
      os.close(null)


def _write(stream: Any, text: str) -> None:
  try:
    stream.write(text)
  except UnicodeEncodeError:
    # Nothing was written.
    encoding = stream.encoding or "ascii"
    known = text.encode(encoding, "backslashreplace").decode(encoding)
    stream.write(known)


def silence_output() -> None:
  """Discards standard output, in all processes but the main one."""
  sys.stdout = Output(None)


def protect_output() -> None:
  """Replaces standard output and error by `Output` streams."""
  sys.stdout = Output(sys.stdout)
  sys.stderr = Output(sys.stderr)
