"""Rendezvous of the processes of a run, before JAX starts.

JAX aborts where a process is missing or was started with other numbers, and
names nobody (README.md has the cases). So the processes first meet here, on the
port that JAX uses afterwards: process 0 waits for the others and says who is
missing, or who disagrees. The connections stay open for `watchdog`.

Messages are lines of JSON; nothing that is received is executed or stored. As
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
from typing import NamedTuple

from paws_jax import errors
from paws_jax import text
from paws_jax.distributed import connection as connection_lib

# Longest value in a message.
_MAX_CHARACTERS = 80
# Limits of what a message may claim.
_MAX_PROCESSES = 2**20
_MAX_SECONDS = 7 * 24 * 3600
# The others wait longer than process 0, which tells them what was missing.
_EXTRA_SECONDS = 15.0


def name_processes(ids: Sequence[int]) -> str:
  """Gives "process 3", "processes 0, 2", "processes 0, 1, 2 and 61 more"."""
  shown = text.first_few(ids, most=3)
  return f"process{'es' if len(ids) > 1 else ''} {shown}"


def list_values(values: Mapping[int, str]) -> str:
  """Gives "64 on process 0, 128 on processes 1, 2"."""
  grouped: dict[str, list[int]] = {}
  for number, value in values.items():
    grouped.setdefault(value, []).append(number)
  return ", ".join(
    f"{_shorten(value, list(grouped))} on {name_processes(ids)}"
    for value, ids in grouped.items()
  )


def _shorten(value: str, others: list[str]) -> str:
  """Cuts a long value to the place where it differs from the others."""
  if len(value) <= _MAX_CHARACTERS:
    return value
  columns = zip(*others, strict=False)
  alike = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
  start = max(sum(1 for _ in alike) - _MAX_CHARACTERS // 4, 0)
  cut = value[start : start + _MAX_CHARACTERS]
  return f"{'...' if start else ''}{cut}..."


class _Process(NamedTuple):
  """What a process says of itself when it connects; the fields of `meet`."""

  process_id: int
  num_processes: int
  host: str
  run_id: str

  def __str__(self) -> str:
    return f"process {self.process_id} ({self.host})"


def meet(
  address: str,
  num_processes: int,
  process_id: int,
  *,
  timeout_seconds: float,
  run_id: str = "",
) -> list[connection_lib.Connection]:
  """Waits until all processes have connected to process 0.

  Args:
    address: "host:port" where process 0 listens; the port is free afterwards.
    num_processes: number of processes of the run.
    process_id: number of this process.
    timeout_seconds: how long to wait; a process that has reached process 0
      waits as long as process 0 does.
    run_id: identifies the run where its launcher gives it a name, else "".

  Returns:
    On process 0 the connections to all others, in their order; on the others
    the one to process 0.

  Raises:
    DistributedError: who waited how long for whom, or disagrees with whom, and
      what to check.
  """
  me = _Process(process_id, num_processes, socket.gethostname(), run_id)
  if process_id:
    return [_join(address, me, timeout_seconds)]
  return _Coordinator(address, me, timeout_seconds).wait()


class _Coordinator:
  """Process 0 of a rendezvous."""

  def __init__(self, address: str, me: _Process, timeout_seconds: float):
    """Starts the clock."""
    self._address = address
    self._me = me
    self._seconds = timeout_seconds
    self._deadline = time.monotonic() + timeout_seconds
    # Processes by their numbers; connections that have not said who they are,
    # with the time until which they may.
    self._joined: dict[int, connection_lib.Connection] = {}
    self._unknown: dict[connection_lib.Connection, float] = {}

  def wait(self) -> list[connection_lib.Connection]:
    """Returns the connections to all others, and lets these continue."""
    port = int(self._address.rpartition(":")[2])
    with _listen(port) as listener:
      listener.setblocking(False)
      try:
        while len(self._joined) < self._me.num_processes - 1:
          if time.monotonic() >= self._deadline:
            raise self._missing_error(port)
          self._handle_events(listener)
      except BaseException:
        for connection in self._joined.values():
          connection.close()
        raise
      finally:
        for connection in self._unknown:
          connection.close()
    for connection in self._joined.values():
      connection.send(go=True)
    return [connection for _, connection in sorted(self._joined.items())]

  def _missing_error(self, port: int) -> errors.DistributedError:
    num = self._me.num_processes
    missing = sorted(set(range(1, num)) - set(self._joined))
    return self._refuse_all(
      f"{self._me} has waited {self._seconds:g} s for "
      f"{name_processes(missing)}, of {num}, on port {port}. Check that all "
      "were started, with the same coordinator address and number of "
      f"processes, and can reach {self._address} (its name, a firewall)."
    )

  def _handle_events(self, listener: socket.socket) -> None:
    """Waits for the next event and handles it."""
    until = min([self._deadline, *self._unknown.values()])
    joined = {connection: n for n, connection in self._joined.items()}
    for each in connection_lib.ready(
      [listener, *self._unknown, *joined], until - time.monotonic()
    ):
      if each is listener:
        # Fails where the other side has closed the connection since.
        with contextlib.suppress(OSError):
          connection = connection_lib.Connection(listener.accept()[0])
          limit = time.monotonic() + connection_lib.LINE_SECONDS
          self._unknown[connection] = limit
      elif each in self._unknown:
        self._read_hello(each)
      elif self._joined.get(number := joined[each]) is each:
        # It has nothing to say now: it has gone, and may be started again.
        self._joined.pop(number).close()
    for connection, until in list(self._unknown.items()):
      if time.monotonic() >= until:
        self._drop(connection)

  def _read_hello(self, connection: connection_lib.Connection) -> None:
    """Adds a process of this run; drops anything else that has connected."""
    try:
      process = _parse(connection.receive(0))
    except TimeoutError:
      return
    except ValueError:
      # A port scanner, or a health check.
      self._drop(connection)
      return
    if process.run_id != self._me.run_id:
      connection.send(
        refused=f"{process} of the run {process.run_id!r} has reached "
        f"{self._me} of another, {self._me.run_id!r}, at {self._address}: "
        "start all processes of a run in the same way, or, if these are two "
        "runs, give one of them another port."
      )
      self._drop(connection)
      return
    connection.name = str(process)
    self._check(connection, process)
    del self._unknown[connection]
    if process.process_id in self._joined:
      self._joined[process.process_id].close()
    self._joined[process.process_id] = connection
    # Also tells the other side that this is process 0.
    connection.send(waiting=max(self._deadline - time.monotonic(), 0))

  def _check(
    self, connection: connection_lib.Connection, process: _Process
  ) -> None:
    """Refuses all when the numbers of this process cannot be right."""
    number, num = process.process_id, process.num_processes
    if num != self._me.num_processes:
      raise self._refuse_all(
        f"{process} was started with {num} processes, {self._me} with "
        f"{self._me.num_processes}: start all with the same number of "
        "processes.",
        connection,
      )
    if number in self._joined and not self._joined[number].has_gone():
      other = self._joined[number].name.partition("(")[2].rstrip(")")
      raise self._refuse_all(
        f"two processes are number {number}, on {process.host} and on "
        f"{other}: give each its own number from 0 to {num - 1}.",
        connection,
      )

  def _drop(self, connection: connection_lib.Connection) -> None:
    connection.close()
    del self._unknown[connection]

  def _refuse_all(
    self, reason: str, *others: connection_lib.Connection
  ) -> errors.DistributedError:
    """Sends the reason to all that have come; returns the error to raise."""
    for connection in (*self._joined.values(), *others):
      connection.send(refused=reason)
      connection.close()
    return errors.DistributedError(reason)


def _parse(message: dict[str, Any] | None) -> _Process:
  """Checks the first message of a process.

  Raises:
    ValueError: when it cannot come from a process of a run.
  """
  try:
    process = _Process(**(message or {}))
  except TypeError as error:
    raise ValueError("other fields than a process sends") from error
  if (
    [type(value) for value in process] != [int, int, str, str]
    or not 0 < process.process_id < process.num_processes <= _MAX_PROCESSES
    or not (process.host + process.run_id).isprintable()
  ):
    raise ValueError("other values than a process sends")
  return process


def _listen(port: int) -> socket.socket:
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
  address: str, me: _Process, timeout_seconds: float
) -> connection_lib.Connection:
  """Connects to process 0 and waits until it says that all have come."""
  host, _, port = address.rpartition(":")
  deadline = time.monotonic() + timeout_seconds
  while True:
    try:
      # One that does not answer, as behind a firewall, may do so later.
      connected = socket.create_connection((host.strip("[]"), int(port)), 5)
    except OSError as error:
      if time.monotonic() > deadline:
        raise errors.DistributedError(
          f"{me} has tried for {timeout_seconds:g} s to reach process 0 at "
          f"{address} ({error.strerror or error}). Check that process 0 was "
          "started, that the address is that of its machine, and that no "
          "firewall closes the port."
        ) from error
      time.sleep(min(0.2, timeout_seconds / 10))
      continue
    connection = connection_lib.Connection(connected)
    connection.send(**me._asdict())
    answer, deadline = _receive_answer(connection, deadline)
    if answer is not None and answer.get("go") is True:
      return connection
    connection.close()
    if answer is None and time.monotonic() < deadline:
      # Process 0 has gone, and may be started again.
      time.sleep(0.2)
      continue
    if answer is None:
      reason = "process 0 has gone: see its output."
    elif type(answer.get("refused")) is str:
      raise errors.DistributedError(answer["refused"])
    else:
      reason = (
        "what answers there is not process 0 of a run that is starting. "
        "Another program, or an earlier run, may use the port: end that, or "
        "choose another port, the same for all processes."
      )
    raise errors.DistributedError(f"{me} has reached {address}, but {reason}")


def _receive_answer(
  connection: connection_lib.Connection, deadline: float
) -> tuple[dict[str, Any] | None, float]:
  """Waits for the decision of process 0.

  Returns:
    Its last message, None where it has gone, {} where it is something else; and
    the time (of time.monotonic) at which process 0 gives up, `deadline` where
    it has not said.
  """
  left = max(deadline - time.monotonic(), 0)
  try:
    answer = connection.receive(left + _EXTRA_SECONDS)
    if answer is not None and "waiting" in answer:
      # Process 0 may have been started later than this one.
      left = answer["waiting"]
      if type(left) not in (int, float) or not 0 <= left <= _MAX_SECONDS:
        return {}, deadline
      deadline = time.monotonic() + left
      answer = connection.receive(left + _EXTRA_SECONDS)
  except (TimeoutError, ValueError):
    answer = {}
  return answer, deadline
