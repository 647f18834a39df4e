"""Signals that end a process."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from typing import Any


class Signals:
  """Records signals that end a process; a second SIGINT interrupts.

  SIGTERM, SIGINT, and SIGHUP (a closed terminal) unless it is already ignored.
  With several processes none decides by itself: SIGTERM is then handled by JAX
  (`lifecycle.StopNotice`), and the other signals are passed on as SIGTERM.

  Attributes:
    received: the first of these signals, or None. With several processes the
      caller sets it when all processes stop.
  """

  def __init__(self, *, several: bool = False):
    """Installs nothing yet.

    Args:
      several: whether this process is one of several.
    """
    self.received: signal.Signals | None = None
    self._several = several
    self._passed_on = False

  def __enter__(self) -> Signals:
    numbers = [signal.SIGINT]
    if not self._several:
      numbers.append(signal.SIGTERM)
    # Windows has none. nohup ignores it, and it stays ignored.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
      numbers.append(hangup)
    handler = self._pass_on if self._several else self._record
    if threading.current_thread() is not threading.main_thread():
      # Python delivers signals to the main thread, and allows handlers there.
      numbers.clear()
    self._before = {s: signal.signal(s, handler) for s in numbers}
    return self

  def __exit__(self, *unused: Any) -> None:
    for number, handler in self._before.items():
      signal.signal(number, handler)

  def _pass_on(self, number: int, unused_frame: Any) -> None:
    if not self._passed_on:
      self._passed_on = True
      _say(f"{signal.Signals(number).name}: all processes will save and stop")
      os.kill(os.getpid(), signal.SIGTERM)
    elif number == signal.SIGINT:
      raise KeyboardInterrupt

  def _record(self, number: int, unused_frame: Any) -> None:
    if self.received is None:
      self.received = signal.Signals(number)
      name = self.received.name
      _say(f"{name}: finishing the current step, then saving ...")
    elif number == signal.SIGINT:
      raise KeyboardInterrupt


def _say(text: str) -> None:
  """Writes a line from inside a signal handler."""
  # Not `print`: the signal may arrive during one, and Python's streams do not
  # allow a second inside it. A closed stream must not prevent the save.
  with contextlib.suppress(OSError):
    os.write(2, f"\n{text}\n".encode())
