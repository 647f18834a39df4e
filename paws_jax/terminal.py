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
  Of several processes none decides by itself: SIGTERM is JAX's there
  (`distributed.StopNotice`), and the other signals are sent on as it.

  Attributes:
    received: the first of them that came, or None; with several processes to
      be set by whoever learns that all stop.
  """

  def __init__(self, *, several: bool = False):
    """Notes nothing yet; `several`: whether this is one of many processes."""
    self.received: signal.Signals | None = None
    self._several = several
    self._sent_on = False

  def __enter__(self) -> Signals:
    noted = [signal.SIGINT]
    if not self._several:
      noted.append(signal.SIGTERM)
    # nohup has it ignored; then it stays so.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
      noted.append(signal.SIGHUP)
    handler = self._send_on if self._several else self._note
    self._before = {s: signal.signal(s, handler) for s in noted}
    return self

  def __exit__(self, *unused: Any) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _send_on(self, number: int, unused_frame: Any) -> None:
    if not self._sent_on:
      self._sent_on = True
      _say(f"{signal.Signals(number).name}: all processes will save and stop")
      os.kill(os.getpid(), signal.SIGTERM)
    elif number == signal.SIGINT:
      raise KeyboardInterrupt

  def _note(self, number: int, unused_frame: Any) -> None:
    if self.received is None:
      self.received = signal.Signals(number)
      name = self.received.name
      _say(f"{name}: finishing the step under way, then saving ...")
    elif number == signal.SIGINT:
      raise KeyboardInterrupt


def _say(text: str) -> None:
  """Writes a line from inside a signal handler."""
  # Not `print`: the signal may have come in the middle of one, and Python's
  # streams do not allow a second inside. A reader that has gone must not cost
  # the save.
  with contextlib.suppress(OSError):
    os.write(2, f"\n{text}\n".encode())


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
