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
import socket
import time
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax import errors
from paws_jax import text
from paws_jax.distributed import connection as connection_lib

# Of a value in a message.
_MOST_CHARACTERS = 80
# No run has more processes, and none waits for more seconds than a week.
_MOST_PROCESSES = 2**20
_MOST_SECONDS = 7 * 24 * 3600
# Processes wait longer than process 0, to be told by it what was missing.
_EXTRA_SECONDS = 15.0


def name_processes(ids: Sequence[int]) -> str:
  """Gives "process 3", "processes 0, 2", "processes 0, 1, 2 and 61 more"."""
  shown = text.first_few(ids, most=3)
  return f"process{'es' if len(ids) > 1 else ''} {shown}"


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


def meet(
  address: str,
  num_processes: int,
  process_id: int,
  *,
  timeout_seconds: float,
  run_id: str = "",
) -> list[connection_lib.Peer]:
  """Waits until all processes are there.

  Args:
    address: "host:port" where process 0 listens; free again afterwards.
    num_processes: how many there are to be.
    process_id: which of them this is.
    timeout_seconds: how long to wait; one that has reached process 0 waits as
      long as that does.
    run_id: what all processes of this run, and of no other, were told; "" where
      there is no such thing.

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
    "run_id": run_id,
  }
  if process_id:
    return [_join(address, me, timeout_seconds)]
  return _Gathering(address, me, timeout_seconds).wait()


class _Gathering:
  """What process 0 does in `meet`."""

  def __init__(
    self, address: str, me: Mapping[str, Any], timeout_seconds: float
  ):
    """Takes what `meet` was told."""
    self._address = address
    self._me = me
    self._seconds = timeout_seconds
    self._deadline = time.monotonic() + timeout_seconds
    # Those that have said who they are, by their numbers; the others, and until
    # when they may.
    self._peers: dict[int, connection_lib.Peer] = {}
    self._strangers: dict[connection_lib.Peer, float] = {}

  def wait(self) -> list[connection_lib.Peer]:
    """Connections to all others, which may go on then."""
    wanted = range(1, self._me["num_processes"])
    port = int(self._address.rpartition(":")[2])
    with _listener(port) as listener:
      listener.setblocking(False)
      try:
        while len(self._peers) < len(wanted):
          if time.monotonic() >= self._deadline:
            raise self._nobody_else(port)
          self._attend(listener)
      except BaseException:
        # An error that the others have not been told of.
        for peer in self._peers.values():
          peer.socket.close()
        raise
      finally:
        for stranger in self._strangers:
          stranger.socket.close()
    for peer in self._peers.values():
      peer.say(go=True)
    return [self._peers[number] for number in wanted]

  def _nobody_else(self, port: int) -> errors.DistributedError:
    num = self._me["num_processes"]
    missing = sorted(set(range(1, num)) - set(self._peers))
    return self._refusal(
      f"process 0 ({self._me['host']}) has waited {self._seconds:g} s for "
      f"{name_processes(missing)}, of {num}, on port {port}. Look whether all "
      "were started, with the same coordinator address and number of "
      f"processes, and can reach {self._address} (its name, a firewall)."
    )

  def _attend(self, listener: socket.socket) -> None:
    """Waits until something happens, and sees to it."""
    until = min([self._deadline, *self._strangers.values()])
    numbers = {peer: number for number, peer in self._peers.items()}
    for each in connection_lib.ready(
      [listener, *self._strangers, *numbers], until - time.monotonic()
    ):
      if each is listener:
        # It may have gone in the meantime.
        with contextlib.suppress(OSError):
          stranger = connection_lib.Peer(listener.accept()[0])
          self._strangers[stranger] = (
            time.monotonic() + connection_lib.LINE_SECONDS
          )
      elif each in self._strangers:
        self._listen_to(each)
      elif self._peers.get(numbers[each]) is each:
        # None has anything to say now: it has gone, and may be started again.
        each.socket.close()
        del self._peers[numbers[each]]
    for stranger, until in list(self._strangers.items()):
      if time.monotonic() >= until:
        self._turn_away(stranger)

  def _listen_to(self, stranger: connection_lib.Peer) -> None:
    """Takes in one more process, if what has connected is one."""
    try:
      hello = _hello(stranger.hear(0))
    except TimeoutError:
      return
    except ValueError:
      # A scanner of ports, or a check of health.
      self._turn_away(stranger)
      return
    number, run_id = hello["process_id"], hello["run_id"]
    stranger.name = f"process {number} ({hello['host']})"
    if run_id != self._me["run_id"]:
      stranger.say(
        refused=f"{stranger.name} of the run {run_id!r} has reached process 0 "
        f"({self._me['host']}) of another, {self._me['run_id']!r}, at "
        f"{self._address}: start all processes of a run in the same way, or, "
        "if these are two runs, give one of them another port."
      )
      self._turn_away(stranger)
      return
    self._check(stranger, hello)
    del self._strangers[stranger]
    if number in self._peers:
      self._peers[number].socket.close()
    self._peers[number] = stranger
    # Also says that this is process 0, which nothing else would.
    stranger.say(waiting=max(self._deadline - time.monotonic(), 0))

  def _check(self, peer: connection_lib.Peer, hello: Mapping[str, Any]) -> None:
    """Refuses all when this one was told something else."""
    number, num = hello["process_id"], hello["num_processes"]
    if num != self._me["num_processes"]:
      raise self._refusal(
        f"{peer.name} was told that there are {num} processes, process 0 "
        f"({self._me['host']}) that there are {self._me['num_processes']}: "
        "start all with the same number of processes.",
        peer,
      )
    if number in self._peers and not self._peers[number].has_gone():
      other = self._peers[number].name.partition("(")[2].rstrip(")")
      raise self._refusal(
        f"two processes are number {number}, on {hello['host']} and on "
        f"{other}: give each its own number from 0 to {num - 1}.",
        peer,
      )

  def _turn_away(self, stranger: connection_lib.Peer) -> None:
    stranger.socket.close()
    del self._strangers[stranger]

  def _refusal(
    self, reason: str, *others: connection_lib.Peer
  ) -> errors.DistributedError:
    """Tells all that are there, and lets them go; the error to raise here."""
    for peer in (*self._peers.values(), *others):
      peer.say(refused=reason)
      peer.socket.close()
    return errors.DistributedError(reason)


def _hello(message: dict[str, Any] | None) -> dict[str, Any]:
  """Checks what a process says first.

  Raises:
    ValueError: when no process of ours says this.
  """
  kinds = {"process_id": int, "num_processes": int, "host": str, "run_id": str}
  hello = message or {}
  if (
    any(type(hello.get(name)) is not kind for name, kind in kinds.items())
    or not 0 < hello["process_id"] < hello["num_processes"] <= _MOST_PROCESSES
    or not (hello["host"] + hello["run_id"]).isprintable()
  ):
    raise ValueError("not a process of a run")
  return hello


def _listener(port: int) -> socket.socket:
  try:
    if socket.has_dualstack_ipv6():
      with contextlib.suppress(OSError):
        return socket.create_server(
          ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512
        )
    return socket.create_server(("", port), backlog=512)
  except OSError as error:
    raise errors.DistributedError(
      f"process 0 ({socket.gethostname()}) cannot listen on port {port}: "
      f"{error.strerror}. Another program, or an earlier run, may use it: end "
      "that, or choose another port, the same for all processes."
    ) from error


def _join(
  address: str, me: Mapping[str, Any], timeout_seconds: float
) -> connection_lib.Peer:
  """What the others do in `meet`."""
  who = f"process {me['process_id']} ({me['host']})"
  deadline = time.monotonic() + timeout_seconds
  while True:
    try:
      # One that does not answer, as behind a firewall, may do so later.
      host, _, port = address.rpartition(":")
      connection = socket.create_connection(
        (host.strip("[]"), int(port)), timeout=5
      )
    except OSError as error:
      if time.monotonic() > deadline:
        raise errors.DistributedError(
          f"{who} has tried for {timeout_seconds:g} s to reach process 0 at "
          f"{address} ({error.strerror or error}). Look whether process 0 was "
          "started, whether the address is that of its machine, and whether a "
          "firewall closes the port."
        ) from error
      time.sleep(min(0.2, timeout_seconds / 10))
      continue
    peer = connection_lib.Peer(connection)
    peer.say(**me)
    answer, deadline = _answer(peer, deadline)
    if answer is not None and answer.get("go") is True:
      return peer
    connection.close()
    if answer is None and time.monotonic() < deadline:
      # It was there but has gone, and may be started again.
      time.sleep(0.2)
      continue
    if answer is None:
      reason = "process 0 went away: see its output."
    elif type(answer.get("refused")) is str:
      raise errors.DistributedError(answer["refused"])
    else:
      reason = (
        "what answers there is not process 0 of a run that is starting. "
        "Another program, or an earlier run, may use the port: end that, or "
        "choose another port, the same for all processes."
      )
    raise errors.DistributedError(f"{who} has reached {address}, but {reason}")


def _answer(
  peer: connection_lib.Peer, deadline: float
) -> tuple[dict[str, Any] | None, float]:
  """What process 0 decides, and until when it waits.

  Returns:
    Its message, None where it has gone, {} where it is something else, and the
    time (of time.monotonic) at which process 0 gives up, `deadline` where it
    has not said.
  """
  try:
    answer = peer.hear(max(deadline - time.monotonic(), 0) + _EXTRA_SECONDS)
    if answer is not None and "waiting" in answer:
      # May have been started later than this one.
      left = answer["waiting"]
      if type(left) not in (int, float) or not 0 <= left <= _MOST_SECONDS:
        return {}, deadline
      deadline = time.monotonic() + left
      answer = peer.hear(left + _EXTRA_SECONDS)
  except (TimeoutError, ValueError):
    return {}, deadline
  return answer, deadline
