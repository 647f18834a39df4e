"""End all processes of a run when one of them ends or is silent.

The system closes the connections of a process however it ends, so that the
others notice at once. JAX notices a killed process after its heartbeat timeout,
and one that waits for the others in its own exit not at all (README.md). A
process that is stopped keeps its connections: each therefore says at intervals
that it is alive.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

from paws_jax.distributed import connection as connection_lib

# When another process fails, this one may have met the same error, and gets
# this time to report it.
_GRACE_SECONDS = 2.0
# A process that fails waits this long for news of another that was the cause:
# gloo may notice first.
_NEWS_SECONDS = 0.5
# Messages in a row that may be missing before a process counts as silent.
_MISSED = 15


class Watchdog:
  """A thread that ends this process when another one of the run ends."""

  def __init__(
    self,
    connections: list[connection_lib.Connection],
    process_id: int,
    silence_seconds: float,
    *,
    end: Callable[[int], None] = os._exit,
  ):
    """Starts the thread.

    Args:
      connections: those that `rendezvous.meet` returns.
      process_id: number of this process.
      silence_seconds: after which a process is given up. Less than JAX's
        heartbeat timeout, after which it aborts with a stack trace.
      end: ends this process with a status, at once.
    """
    self._connections = connections
    self._silence_seconds = silence_seconds
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
    """Sends and receives messages until one of them ends this process."""
    # Intervals without a message. They are counted, since while this process
    # is stopped itself, as by a suspended machine, none passes.
    missed = dict.fromkeys(self._connections, 0)
    interval = self._silence_seconds / _MISSED
    until = time.monotonic() + interval
    while missed:
      for connection in connection_lib.ready(missed, until - time.monotonic()):
        missed[connection] = 0
        for message in self._messages(connection):
          if message.get("bye"):
            del missed[connection]
            break
          if not message.get("alive"):
            self._stop(connection.name, message.get("failed"))
            return
      if time.monotonic() < until:
        continue
      until = time.monotonic() + interval
      for connection in missed:
        missed[connection] += 1
        if missed[connection] > _MISSED:
          self._stop(connection.name, self._silence(connection.name))
          return
        if not self._leaving.is_set():
          connection.send(alive=True)

  @staticmethod
  def _messages(
    connection: connection_lib.Connection,
  ) -> Iterator[dict[str, Any]]:
    """Yields the messages that have come; an empty one where it has ended."""
    try:
      yield connection.receive(connection_lib.LINE_SECONDS) or {}
      while connection.has_line():
        yield connection.receive(0) or {}
    except (TimeoutError, ValueError):
      yield {}

  def _silence(self, name: str) -> str:
    return (
      f"{name} has sent nothing for {self._silence_seconds:.0f} s: it is "
      "stopped (Ctrl-Z, SIGSTOP, a debugger), its machine is suspended or "
      "hangs, or the network is lost: end it"
    )

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
