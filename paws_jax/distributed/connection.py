"""Connections between the processes of a run: lines of JSON, both ways."""

from __future__ import annotations

import contextlib
import json
import math
import selectors
import socket
import time
from collections.abc import Iterable
from typing import Any

from paws_jax import json_text

_MAX_BYTES = 4096
# The rest of a message, and the first message, must come within this time.
LINE_SECONDS = 5.0
# A connection is probed after 20 s of silence, then every 10 s, and is given up
# after 4 probes: a machine that loses its power closes nothing.
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


class Connection:
  """A connection to another process.

  Attributes:
    socket: never blocks.
    name: of the other process, for messages.
  """

  def __init__(self, connected: socket.socket, name: str = "process 0"):
    """Takes over a connected socket."""
    self.socket = connected
    self.name = name
    self._received = b""
    connected.setblocking(False)
    # Fails on a socket that the other side has closed.
    with contextlib.suppress(OSError):
      connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
      for option, value in _KEEPALIVE.items():
        if hasattr(socket, option):
          number = getattr(socket, option)
          connected.setsockopt(socket.IPPROTO_TCP, number, value)

  def fileno(self) -> int:
    """File descriptor, for `ready`."""
    return self.socket.fileno()

  def close(self) -> None:
    """Closes the connection; closing twice does no harm."""
    self.socket.close()

  def send(self, **message: Any) -> None:
    """Sends a message; does nothing when the other side has gone."""
    with contextlib.suppress(OSError):
      self.socket.sendall(json.dumps(message).encode() + b"\n")

  def receive(self, seconds: float) -> dict[str, Any] | None:
    """Returns the next message, or None when the other side has gone.

    Args:
      seconds: how long to wait; with 0 only what has arrived is read. The start
        of a message is kept for the next call.

    Raises:
      TimeoutError: no complete message has arrived within `seconds`.
      ValueError: what arrives is not a message.
    """
    deadline = time.monotonic() + seconds
    while b"\n" not in self._received:
      if len(self._received) > _MAX_BYTES:
        raise ValueError("too long")
      if not ready([self], deadline - time.monotonic()):
        raise TimeoutError
      try:
        more = self.socket.recv(_MAX_BYTES)
      except BlockingIOError:
        # Another thread has read it.
        continue
      except OSError:
        more = b""
      if not more:
        return None
      self._received += more
    line, _, self._received = self._received.partition(b"\n")
    message = json_text.parse(line)
    if not isinstance(message, dict):
      raise ValueError("not a message")
    return message

  def has_line(self) -> bool:
    """Whether a message has been read from the socket and waits here."""
    return b"\n" in self._received

  def has_gone(self) -> bool:
    """Whether the other side has gone; drops the messages that have arrived."""
    try:
      while self.socket.recv(_MAX_BYTES):
        pass
    except BlockingIOError:
      return False
    except OSError:
      pass
    return True


def ready(readers: Iterable[Any], seconds: float = math.inf) -> list[Any]:
  """Waits until sockets or connections can be read, and returns these.

  Unlike `select.select` it takes file descriptors above 1,023.

  Args:
    readers: sockets and connections; one that was closed counts as readable.
    seconds: how long to wait for the first.
  """
  with selectors.DefaultSelector() as selector:
    for reader in readers:
      selector.register(reader, selectors.EVENT_READ)
    timeout = None if seconds == math.inf else max(seconds, 0)
    return [key.fileobj for key, _ in selector.select(timeout)]
