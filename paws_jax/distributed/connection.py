"""Connections between the processes of a run: lines of JSON, both ways."""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import time
from collections.abc import Iterable
from typing import Any

_MOST_BYTES = 4096
# A message that has begun, and the first one, come within this.
LINE_SECONDS = 5.0
# An idle connection is examined after so many seconds, and then so often.
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


class Peer:
  """A connection to another process."""

  def __init__(self, connection: socket.socket, name: str = "process 0"):
    """Takes over a connection; `name` says who is there, once known."""
    self.socket = connection
    self.name = name
    self._received = b""
    # A process whose machine has lost its power closes nothing. Nor can that be
    # asked of a connection that has been closed already.
    with contextlib.suppress(OSError):
      connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
      for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):
          connection.setsockopt(
            socket.IPPROTO_TCP, getattr(socket, option), value
          )

  def fileno(self) -> int:
    """For `ready`."""
    return self.socket.fileno()

  def say(self, **message: Any) -> None:
    """Sends a message; to one that has gone, nothing."""
    with contextlib.suppress(OSError):
      self.socket.sendall(json.dumps(message).encode() + b"\n")

  def hear(self, seconds: float | None) -> dict[str, Any] | None:
    """The next message; None when there will be none.

    Args:
      seconds: how long to wait; 0: for nothing but what has come, which is kept
        for the next time where it is the beginning of a message; None: for
        ever.

    Raises:
      TimeoutError: no whole message has come within `seconds`.
      ValueError: what comes is no message of ours.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    while b"\n" not in self._received:
      if len(self._received) > _MOST_BYTES:
        raise ValueError("too long")
      left = None if deadline is None else max(deadline - time.monotonic(), 0)
      try:
        self.socket.settimeout(left)
        more = self.socket.recv(_MOST_BYTES)
      except (TimeoutError, BlockingIOError):
        raise TimeoutError from None
      except OSError:
        more = b""
      if not more:
        return None
      self._received += more
    line, _, self._received = self._received.partition(b"\n")
    try:
      message = json.loads(line)
    except RecursionError as error:
      raise ValueError("nested too deeply") from error
    if not isinstance(message, dict):
      raise ValueError("not a message")
    return message

  def has_gone(self) -> bool:
    """Whether the other side has closed the connection."""
    if not ready([self], 0):
      return False
    try:
      return not self.socket.recv(1, socket.MSG_PEEK)
    except OSError:
      return True


def ready(readers: Iterable[Any], seconds: float | None) -> list[Any]:
  """Those of some sockets or peers that have something to read, or have gone.

  Args:
    readers: what to look at; of more than 1,024, too, unlike `select.select`.
    seconds: how long to wait for the first; None: for ever.
  """
  with selectors.DefaultSelector() as selector:
    for reader in readers:
      selector.register(reader, selectors.EVENT_READ)
    if seconds is not None:
      seconds = max(seconds, 0)
    return [key.fileobj for key, _ in selector.select(seconds)]
