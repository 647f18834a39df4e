"""What surrounds a process: signals that end it, an output that may vanish."""

from __future__ import annotations

import contextlib
import os
import signal
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
