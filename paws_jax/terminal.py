"""What surrounds a process: signals that end it, an output that may vanish."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import Any


class Signals:
  """Notes signals that end a process; a second SIGINT interrupts.

  SIGTERM, SIGINT, and SIGHUP (a closed terminal) unless it is ignored already.

  Attributes:
    received: the first of them that came, or None.
  """

  def __init__(self):
    self.received: signal.Signals | None = None

  def __enter__(self) -> Signals:
    noted = [signal.SIGTERM, signal.SIGINT]
    # nohup has it ignored; then it stays so.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
      noted.append(signal.SIGHUP)
    self._before = {s: signal.signal(s, self._note) for s in noted}
    return self

  def __exit__(self, *unused: Any) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _note(self, number: int, unused_frame: Any) -> None:
    if self.received is None:
      self.received = signal.Signals(number)
      # Not `print`: the signal may have come in the middle of one, and Python's
      # streams do not allow a second inside.
      name = self.received.name
      text = f"\n{name}: finishing the step under way, then saving ...\n"
      # A reader that has gone must not cost the save.
      with contextlib.suppress(OSError):
        os.write(2, text.encode())
    elif number == signal.SIGINT:
      raise KeyboardInterrupt


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


def protect_output() -> None:
  """Makes standard output and error `Output`s."""
  sys.stdout = Output(sys.stdout)
  sys.stderr = Output(sys.stderr)
