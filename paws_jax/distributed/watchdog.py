"""When one process of a run goes, the others say so, and stop.

The system closes the connections of a process however it ends, so that the
others learn of it at once. JAX takes ten to a hundred seconds to notice, or, of
a process that waits for the others in its own exit, does not notice at all.
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

from paws_jax.distributed import connection

# When another process ends with an error, this one may have met the same, and
# gets time to say so itself.
_GRACE_SECONDS = 2.0
# ... and one that meets an error waits for word of another that was the cause:
# gloo may notice first.
_WORD_SECONDS = 0.5


class Watch:
  """Ends this process when another one of the run goes.

  A thread that waits for what the connections tell.
  """

  def __init__(
    self,
    peers: list[connection.Peer],
    *,
    process_id: int,
    end: Callable[[int], None] = os._exit,
  ):
    """Starts watching.

    Args:
      peers: what `rendezvous.meet` has returned.
      process_id: number of this process.
      end: ends this process with a status, at once.
    """
    self._peers = peers
    self._process_id = process_id
    self._me = f"process {process_id} ({socket.gethostname()})"
    self._end = end
    self._leaving = threading.Event()
    self._told = threading.Event()
    self._thread = threading.Thread(
      target=self._watch, name="watch", daemon=True
    )
    self._thread.start()

  def join(self, seconds: float) -> None:
    """Waits until there is nobody left to watch."""
    self._thread.join(seconds)

  def leave(self) -> None:
    """Tells the others that this process goes because it is done."""
    self._leaving.set()
    for peer in self._peers:
      peer.say(bye=True)

  def fail(self, status: int) -> None:
    """Tells the others that this process ends with an error."""
    if not self._told.wait(_WORD_SECONDS):
      for peer in self._peers:
        peer.say(failed=f"{self._me} has ended with an error, status {status}")
    self._leaving.set()
    self._let_others_go_first()

  def _watch(self) -> None:
    watched = list(self._peers)
    while watched:
      for peer in connection.ready(watched, None):
        try:
          message = peer.hear(connection.LINE_SECONDS)
        except (TimeoutError, ValueError):
          message = None
        if message is not None and message.get("bye"):
          watched.remove(peer)
          continue
        self._stop(peer, message)
        return

  def _stop(
    self, peer: connection.Peer, message: dict[str, Any] | None
  ) -> None:
    """Passes on that a process has gone, says it, and ends this one."""
    if self._leaving.is_set():
      return
    failed = message is not None and message.get("failed")
    reason = failed or (
      f"{peer.name} has gone without a word: it was killed, had no memory "
      "left, or its machine or network is lost"
    )
    for other in self._peers:
      if other is not peer:
        other.say(failed=reason)
    text = (
      f"\nerror: {reason}; see its output. P{self._me[1:]} stops, too. Once "
      "that is mended, the same command, given to all, goes on from the last "
      "checkpoint, if there is one.\n"
    )
    # Not `print`, whose lock another thread may hold.
    with contextlib.suppress(OSError):
      os.write(2, text.encode())
    self._told.set()
    if failed:
      time.sleep(_GRACE_SECONDS)
    if self._leaving.is_set():
      return
    self._let_others_go_first()
    with contextlib.suppress(OSError, ValueError, RuntimeError):
      sys.stdout.flush()
    self._end(1)

  def _let_others_go_first(self) -> None:
    """Has process 0 wait: JAX aborts the others as soon as it is gone."""
    if self._process_id:
      return
    deadline = time.monotonic() + 2 * _GRACE_SECONDS
    left = [peer.socket for peer in self._peers]
    for each in left:
      each.setblocking(False)
    while left and time.monotonic() < deadline:
      for each in connection.ready(left, 0.1):
        try:
          gone = not each.recv(4096)
        except BlockingIOError:
          # The other thread of this process has read it.
          gone = False
        except OSError:
          gone = True
        if gone:
          left.remove(each)
