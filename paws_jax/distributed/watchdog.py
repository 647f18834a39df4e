"""End all processes of a run when one of them ends.

The system closes the connections of a process however it ends, so that the
others notice at once. JAX notices a killed process after its heartbeat timeout,
and one that waits for the others in its own exit not at all (README.md).
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from paws_jax.distributed import connection as connection_lib

# When another process fails, this one may have met the same error, and gets
# this time to report it.
_GRACE_SECONDS = 2.0
# A process that fails waits this long for news of another that was the cause:
# gloo may notice first.
_NEWS_SECONDS = 0.5


class Watchdog:
  """A thread that ends this process when another one of the run ends."""

  def __init__(
    self,
    connections: list[connection_lib.Connection],
    *,
    process_id: int,
    end: Callable[[int], None] = os._exit,
  ):
    """Starts the thread.

    Args:
      connections: those that `rendezvous.meet` returns.
      process_id: number of this process.
      end: ends this process with a status, at once.
    """
    self._connections = connections
    self._process_id = process_id
    self._me = f"process {process_id} ({socket.gethostname()})"
    self._end = end
    self._leaving = threading.Event()
    self._reported = threading.Event()
    self._thread = threading.Thread(
      target=self._watch, name="watchdog", daemon=True
    )
    self._thread.start()

  def join(self, seconds: float) -> None:
    """Waits until the thread has ended."""
    self._thread.join(seconds)

  def leave(self) -> None:
    """Tells the others that this process ends because it is done."""
    self._leaving.set()
    self._send_all(bye=True)

  def fail(self, status: int) -> None:
    """Tells the others that this process ends with an error."""
    reported = self._reported.wait(_NEWS_SECONDS)
    # First: the others pass the message on, to this process, too.
    self._leaving.set()
    if not reported:
      self._send_all(
        failed=f"{self._me} has ended with an error, status {status}"
      )
    self._let_others_end_first()

  def _send_all(self, **message: Any) -> None:
    for connection in self._connections:
      connection.send(**message)

  def _watch(self) -> None:
    watched = list(self._connections)
    while watched:
      for connection in connection_lib.ready(watched):
        try:
          message = connection.receive(connection_lib.LINE_SECONDS) or {}
        except (TimeoutError, ValueError):
          message = {}
        if not message.get("bye"):
          self._stop(connection.name, message.get("failed"))
          return
        watched.remove(connection)

  def _stop(self, name: str, failed: str | None) -> None:
    """Reports that a process has ended, to the others, too; ends this one."""
    if self._leaving.is_set():
      return
    reason = failed or (
      f"{name} has ended without a message: it was killed, had no memory "
      "left, or its machine or network is lost"
    )
    self._send_all(failed=reason)
    text = (
      f"\nerror: {reason}; see its output. P{self._me[1:]} stops, too. Fix the "
      "cause and run the same command again on all: it continues from the last "
      "checkpoint, if there is one.\n"
    )
    # Not `print`, whose lock another thread may hold.
    with contextlib.suppress(OSError):
      os.write(2, text.encode())
    self._reported.set()
    if failed:
      time.sleep(_GRACE_SECONDS)
    if self._leaving.is_set():
      return
    self._let_others_end_first()
    with contextlib.suppress(OSError, ValueError, RuntimeError):
      sys.stdout.flush()
    self._end(1)

  def _let_others_end_first(self) -> None:
    """Waits on process 0: JAX aborts the others as soon as it has ended."""
    deadline = time.monotonic() + 2 * _GRACE_SECONDS
    while (
      self._process_id == 0
      and time.monotonic() < deadline
      and not all(each.has_gone() for each in self._connections)
    ):
      time.sleep(0.05)
