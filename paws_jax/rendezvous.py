"""The processes of a run find each other before JAX starts, and stay in touch.

What JAX does about a process that does not come, or that goes, is to abort the
others from C++, up to minutes later, with a stack trace. So they first meet
here, on the port that is JAX's afterwards: process 0 waits for the others and
says who is missing, or who was told something else. The connections then stay
open, for `watch`.

Messages are lines of JSON. Nothing that is received is run or stored; but, as
with JAX's own service, whoever can reach the port can disturb the run.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import select
import socket
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

_MOST_BYTES = 4096
# Of a value in a message.
_MOST_CHARACTERS = 80
# A message that has begun, and the first one, come within this.
LINE_SECONDS = 5.0
# Processes wait longer than process 0, to be told by it what was missing.
_EXTRA_SECONDS = 15.0
# An idle connection is examined after so many seconds, and then so often.
_KEEPALIVE = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 4}


class DistributedError(RuntimeError):
  """The processes of a run cannot work together."""


def name_processes(ids: Sequence[int]) -> str:
  """Gives "process 3", "processes 0, 2", "processes 0, 1, 2 and 61 more"."""
  shown = ", ".join(map(str, ids[:3]))
  more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
  return f"process{'es' if len(ids) > 1 else ''} {shown}{more}"


def listed(values: Mapping[int, str]) -> str:
  """Gives "64 on process 0, 128 on processes 1, 2"."""
  grouped: dict[str, list[int]] = {}
  for number, value in values.items():
    grouped.setdefault(value, []).append(number)
  return ", ".join(
    f"{_short(value, list(grouped))} on {name_processes(ids)}"
    for value, ids in grouped.items()
  )


def _short(value: str, others: list[str]) -> str:
  """A value; of a long one the place where it differs from the others."""
  if len(value) <= _MOST_CHARACTERS:
    return value
  columns = zip(*others, strict=False)
  alike = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
  start = max(sum(1 for _ in alike) - _MOST_CHARACTERS // 4, 0)
  cut = value[start : start + _MOST_CHARACTERS]
  return f"{'...' if start else ''}{cut}..."


class Peer:
  """A connection to another process."""

  def __init__(self, connection: socket.socket, name: str = "process 0"):
    """Takes over a connection; `name` says who is there, once known."""
    self.socket = connection
    self.name = name
    self._received = b""
    # A process whose machine has lost its power closes nothing.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE.items():
      if hasattr(socket, option):
        connection.setsockopt(
          socket.IPPROTO_TCP, getattr(socket, option), value
        )

  def say(self, **message: Any) -> None:
    """Sends a message; to one that has gone, nothing."""
    with contextlib.suppress(OSError):
      self.socket.sendall(json.dumps(message).encode() + b"\n")

  def hear(self, seconds: float | None) -> dict[str, Any] | None:
    """The next message; None when there will be none.

    Raises:
      TimeoutError: nothing has come within `seconds`.
      ValueError: what comes is no message of ours.
    """
    deadline = None if seconds is None else time.monotonic() + seconds
    while b"\n" not in self._received:
      if len(self._received) > _MOST_BYTES:
        raise ValueError("too long")
      left = None if deadline is None else deadline - time.monotonic()
      if left is not None and left <= 0:
        raise TimeoutError
      self.socket.settimeout(left)
      try:
        more = self.socket.recv(_MOST_BYTES)
      except TimeoutError:
        raise
      except OSError:
        more = b""
      if not more:
        return None
      self._received += more
    line, _, self._received = self._received.partition(b"\n")
    message = json.loads(line)
    if not isinstance(message, dict):
      raise ValueError("not a message")
    return message

  def has_gone(self) -> bool:
    """Whether the other side has closed the connection."""
    if not select.select([self.socket], [], [], 0)[0]:
      return False
    try:
      return not self.socket.recv(1, socket.MSG_PEEK)
    except OSError:
      return True


def meet(
  address: str, num_processes: int, process_id: int, *, timeout_seconds: float
) -> list[Peer]:
  """Waits until all processes are there.

  Args:
    address: "host:port" where process 0 listens; free again afterwards.
    num_processes: how many there are to be.
    process_id: which of them this is.
    timeout_seconds: how long to wait.

  Returns:
    For process 0 connections to all others, for the others that to process 0.

  Raises:
    DistributedError: who waited how long for whom, or disagrees with whom, and
      what to look at.
  """
  me = {
    "process_id": process_id,
    "num_processes": num_processes,
    "host": socket.gethostname(),
  }
  deadline = time.monotonic() + timeout_seconds
  if process_id:
    return [_join(address, me, deadline, timeout_seconds)]
  return _gather(address, me, deadline, timeout_seconds)


def _gather(
  address: str, me: Mapping[str, Any], deadline: float, timeout_seconds: float
) -> list[Peer]:
  """What process 0 does in `meet`."""
  port = int(address.rpartition(":")[2])
  peers: dict[int, Peer] = {}
  wanted = range(1, me["num_processes"])
  with _listener(port) as listener:
    try:
      while len(peers) < len(wanted):
        left = deadline - time.monotonic()
        if left <= 0:
          missing = name_processes(sorted(set(wanted) - set(peers)))
          raise _refusal(
            peers,
            f"process 0 ({me['host']}) has waited {timeout_seconds:g} s for "
            f"{missing}, of {me['num_processes']}, on port {port}. Look "
            "whether all were started, with the same coordinator address and "
            f"number of processes, and can reach {address} (its name, a "
            "firewall).",
          )
        _admit(listener, me, peers, left)
    except BaseException:
      # An error that the others have not been told of.
      for peer in peers.values():
        peer.socket.close()
      raise
  for peer in peers.values():
    peer.say(go=True)
  return [peers[number] for number in wanted]


def _listener(port: int) -> socket.socket:
  try:
    if socket.has_dualstack_ipv6():
      with contextlib.suppress(OSError):
        return socket.create_server(
          ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512
        )
    return socket.create_server(("", port), backlog=512)
  except OSError as error:
    raise DistributedError(
      f"process 0 ({socket.gethostname()}) cannot listen on port {port}: "
      f"{error.strerror}. Another program, or an earlier run, may use it: end "
      "that, or choose another port, the same for all processes."
    ) from error


def _admit(
  listener: socket.socket,
  me: Mapping[str, Any],
  peers: dict[int, Peer],
  seconds: float,
) -> None:
  """Takes in one more process, if what connects is one."""
  listener.settimeout(seconds)
  try:
    connection, _ = listener.accept()
  except TimeoutError:
    return
  peer = Peer(connection)
  try:
    hello = peer.hear(LINE_SECONDS) or {}
    number, num = int(hello["process_id"]), int(hello["num_processes"])
    host = str(hello["host"])
  except (TimeoutError, ValueError, KeyError, TypeError):
    # A scanner of ports, or a check of health.
    connection.close()
    return
  peer.name = f"process {number} ({host})"
  everybody = {**peers, -1: peer}
  if num != me["num_processes"]:
    raise _refusal(
      everybody,
      f"{peer.name} was told that there are {num} processes, process 0 "
      f"({me['host']}) that there are {me['num_processes']}: start all with "
      "the same number of processes.",
    )
  if number in peers and not peers[number].has_gone():
    raise _refusal(
      everybody,
      f"two processes are number {number}, on {host} and on "
      f"{peers[number].name.partition('(')[2].rstrip(')')}: give each its own "
      f"number from 0 to {num - 1}.",
    )
  if not 0 < number < num:
    raise _refusal(
      everybody,
      f"two processes are number {number}, on {host} and on {me['host']}: give "
      f"each its own number from 0 to {num - 1}.",
    )
  if number in peers:
    peers[number].socket.close()
  peers[number] = peer


def _refusal(peers: Mapping[int, Peer], reason: str) -> DistributedError:
  """Tells all that are there, and lets them go; the error to raise here."""
  for peer in peers.values():
    peer.say(refused=reason)
    peer.socket.close()
  return DistributedError(reason)


def _join(
  address: str, me: Mapping[str, Any], deadline: float, timeout_seconds: float
) -> Peer:
  """What the others do in `meet`."""
  who = f"process {me['process_id']} ({me['host']})"
  host, _, port = address.rpartition(":")
  failure = None
  while True:
    try:
      # One that does not answer, as behind a firewall, may do so later.
      connection = socket.create_connection(
        (host.strip("[]"), int(port)), timeout=5
      )
    except OSError as error:
      failure = error.strerror or str(error)
      if time.monotonic() > deadline:
        raise DistributedError(
          f"{who} has tried for {timeout_seconds:g} s to reach process 0 at "
          f"{address} ({failure}). Look whether process 0 was started, whether "
          "the address is that of its machine, and whether a firewall closes "
          "the port."
        ) from error
      time.sleep(min(0.2, timeout_seconds / 10))
      continue
    peer = Peer(connection)
    peer.say(**me)
    try:
      answer = peer.hear(deadline - time.monotonic() + _EXTRA_SECONDS)
    except (TimeoutError, ValueError):
      answer = {
        "refused": f"{who} has reached {address}, but what answers there is "
        "not process 0 of a run that is starting. Another program, or an "
        "earlier run, may use the port: end that, or choose another port, the "
        "same for all processes."
      }
    if answer is None and time.monotonic() < deadline:
      # It was there but has gone, and may be started again.
      connection.close()
      time.sleep(0.2)
      continue
    if answer is None or not answer.get("go"):
      connection.close()
      raise DistributedError(
        (answer or {}).get("refused")
        or f"{who} has reached {address}, but process 0 went away: see its "
        "output."
      )
    return peer
