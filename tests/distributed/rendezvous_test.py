"""Rendezvous of the processes of a run, and its errors."""

import concurrent.futures
import contextlib
import fcntl
import json
import resource
import socket
import threading
import time

import pytest

from paws_jax import errors
from paws_jax.distributed import connection as connection_lib
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import rendezvous
from tests import processes


def meet_all(ids, nums=None, *, seconds=20.0, delays=None):
  """Calls `meet` in one thread each; returns connections, or the error."""
  address = f"localhost:{processes.free_port()}"
  nums = nums or [len(ids)] * len(ids)

  def meet(number, num, delay):
    time.sleep(delay)
    try:
      return rendezvous.meet(address, num, number, timeout_seconds=seconds)
    except errors.DistributedError as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(len(ids)) as pool:
    outcomes = list(pool.map(meet, ids, nums, delays or [0] * len(ids)))
  for outcome in outcomes:
    for connection in outcome if isinstance(outcome, list) else []:
      connection.close()
  return outcomes


@pytest.mark.parametrize("delays", [None, [0, 0.3, 0.1], [0.3, 0, 0]])
def test_all_meet(delays):
  first, *others = meet_all([0, 1, 2], delays=delays)
  host = socket.gethostname()
  names = [connection.name for connection in first]
  assert names == [f"process 1 ({host})", f"process 2 ({host})"]
  assert [[connection.name for connection in other] for other in others] == [
    ["process 0"],
    ["process 0"],
  ]


def test_port_is_free_afterwards():
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    meet = lambda i: rendezvous.meet(address, 2, i, timeout_seconds=20)  # noqa: E731
    found = [
      connection
      for connections in pool.map(meet, range(2))
      for connection in connections
    ]
  # With the connections still open.
  socket.create_server(("", port)).close()
  for connection in found:
    connection.close()


def test_missing_processes():
  outcomes = meet_all([0, 2], [4, 4], seconds=1.0)
  # The one that has come is told the same.
  assert outcomes[0] == outcomes[1]
  assert "has waited 1 s for processes 1, 3, of 4" in outcomes[0]
  assert "that all were started" in outcomes[0]


def test_missing_process_0():
  (outcome,) = meet_all([1], [2], seconds=1.0)
  assert f"process 1 ({socket.gethostname()}) has tried for 1 s" in outcome
  assert "reach process 0 at localhost:" in outcome
  assert "refused" in outcome
  assert "firewall" in outcome


def test_unknown_host():
  with pytest.raises(errors.DistributedError, match=r"at nowhere\.invalid"):
    rendezvous.meet("nowhere.invalid:1", 2, 1, timeout_seconds=0.3)


@pytest.mark.parametrize("nums", [[2, 3], [3, 2]])
def test_different_numbers_of_processes(nums):
  start = time.monotonic()
  outcomes = meet_all([0, 1], nums)
  assert time.monotonic() - start < 10
  assert outcomes[0] == outcomes[1]
  host = socket.gethostname()
  assert (
    f"process 1 ({host}) was started with {nums[1]} processes, process 0 "
    f"({host}) with {nums[0]}: start all with the same number"
  ) in outcomes[0]


def test_two_processes_with_one_number():
  outcomes = meet_all([0, 1, 1])
  assert len(set(outcomes)) == 1
  assert "two processes are number 1" in outcomes[0]


def test_port_in_use():
  with socket.create_server(("", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
    with pytest.raises(errors.DistributedError, match="cannot listen on"):
      rendezvous.meet(address, 2, 0, timeout_seconds=5)


def test_torchrun_occupies_its_port():
  with socket.create_server(("", 0)) as store:

    def meet(number):
      launch = launch_lib.detect(
        coordinator_address=None,
        num_processes=None,
        process_id=None,
        environ={
          "RANK": str(number),
          "WORLD_SIZE": "2",
          "MASTER_ADDR": "localhost",
          "MASTER_PORT": str(store.getsockname()[1]),
          "TORCHELASTIC_USE_AGENT_STORE": "True",
          "TORCHELASTIC_RUN_ID": "none",
        },
      )
      return rendezvous.meet(
        launch.coordinator_address,
        launch.num_processes,
        launch.process_id,
        timeout_seconds=20,
        run_id=launch.run_id,
      )

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
      found = [
        connection
        for connections in pool.map(meet, range(2))
        for connection in connections
      ]
    assert len(found) == 2
    for connection in found:
      connection.close()


@pytest.mark.parametrize(
  "words",
  [
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    b"{}\n",
    b'{"waiting": "long"}\n',
    b'{"waiting": Infinity}\n',
    b'{"waiting": 5}\n[]\n',
    b'{"waiting": true}\n',
    b'{"go": 1}\n',
    b'{"refused": 1}\n',
  ],
)
def test_another_program_answers(words):
  with socket.create_server(("localhost", 0)) as server:

    def answer():
      connection, _ = server.accept()
      with connection:
        connection.recv(9999)
        connection.sendall(words)

    thread = threading.Thread(target=answer)
    thread.start()
    address = f"localhost:{server.getsockname()[1]}"
    with pytest.raises(errors.DistributedError, match="is not process 0"):
      rendezvous.meet(address, 2, 1, timeout_seconds=3)
    thread.join()


def test_nothing_answers(monkeypatch):
  monkeypatch.setattr(rendezvous, "_EXTRA_SECONDS", 0.2)
  with socket.create_server(("localhost", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
    with pytest.raises(errors.DistributedError, match="is not process 0"):
      rendezvous.meet(address, 2, 1, timeout_seconds=0.3)


HELLO = {"process_id": 1, "num_processes": 2, "host": "x", "run_id": ""}
OTHER_CLIENTS = [
  b"GET / HTTP/1.1\r\n\r\n",
  b"",
  b"[1]\n",
  b'{"host": 1}\n',
  b"[" * 4090 + b"\n",
  b"x" * 9000,
  b"\xff\n",
  *(
    json.dumps(HELLO | change).encode() + b"\n"
    for change in (
      {"process_id": float("inf")},
      {"process_id": float("nan")},
      {"process_id": 1.5},
      {"process_id": True},
      {"process_id": 0},
      {"process_id": 2},
      {"num_processes": "2"},
      {"num_processes": 10**400},
      {"host": "\x1b[2J"},
      {"host": "\ud800"},
      {"run_id": None},
    )
  ),
]


@pytest.mark.parametrize("words", OTHER_CLIENTS)
def test_other_clients_are_ignored(words):
  port = processes.free_port()
  address = f"localhost:{port}"

  def join():
    _connect(port, words).close()
    return rendezvous.meet(address, 2, 1, timeout_seconds=20)

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    other = pool.submit(join)
    found = rendezvous.meet(address, 2, 0, timeout_seconds=20)
    host = socket.gethostname()
    assert [connection.name for connection in found] == [f"process 1 ({host})"]
    for connection in found + other.result():
      connection.close()


def _connect(port, words=b""):
  """Connects to process 0, which may still be starting."""
  deadline = time.monotonic() + 10
  while True:
    try:
      connection = socket.create_connection(("localhost", port), timeout=10)
    except OSError:
      assert time.monotonic() < deadline
      time.sleep(0.02)
      continue
    with contextlib.suppress(OSError):
      connection.sendall(words)
    return connection


def test_silent_clients_delay_nobody(monkeypatch):
  # Longer than any of this takes.
  monkeypatch.setattr(connection_lib, "LINE_SECONDS", 60)
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first = pool.submit(rendezvous.meet, address, 2, 0, timeout_seconds=20)
    silent = [_connect(port, words) for words in (b"", b"", b'{"proc')]
    other = rendezvous.meet(address, 2, 1, timeout_seconds=20)
    for connection in first.result() + other:
      connection.close()
    # They are let go afterwards.
    for each in silent:
      with each, contextlib.suppress(ConnectionResetError):
        assert each.recv(1) == b""


def test_silent_client_is_dropped(monkeypatch):
  monkeypatch.setattr(connection_lib, "LINE_SECONDS", 0.2)
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(rendezvous.meet, address, 2, 0, timeout_seconds=60)
    try:
      with _connect(port) as silent:
        assert silent.recv(1) == b""
    finally:
      other = rendezvous.meet(address, 2, 1, timeout_seconds=60)
    for connection in first.result() + other:
      connection.close()


def test_first_message_in_two_parts():
  port = processes.free_port()
  words = json.dumps(HELLO).encode() + b"\n"
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(
      rendezvous.meet, f"localhost:{port}", 2, 0, timeout_seconds=20
    )
    with _connect(port, words[:20]) as connection:
      time.sleep(0.2)
      connection.sendall(words[20:])
      (connection,) = first.result()
    assert connection.name == "process 1 (x)"
    connection.close()


def test_another_run_on_the_port():
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    first = pool.submit(
      rendezvous.meet, address, 2, 0, timeout_seconds=20, run_id="a"
    )
    for other in ("b", ""):
      with pytest.raises(errors.DistributedError) as raised:
        rendezvous.meet(address, 7, 1, timeout_seconds=20, run_id=other)
      host = socket.gethostname()
      assert (
        f"process 1 ({host}) of the run {other!r} has reached process 0 "
        f"({host}) of another, 'a', at {address}: start all"
      ) in str(raised.value)
    # The first run starts all the same.
    found = rendezvous.meet(address, 2, 1, timeout_seconds=20, run_id="a")
    for connection in first.result() + found:
      connection.close()


def test_late_start_of_process_0_extends_the_wait(monkeypatch):
  monkeypatch.setattr(rendezvous, "_EXTRA_SECONDS", 0.2)
  # Process 1 would give up after 2.2 s on its own, and process 0 waits until
  # 3.5 s.
  outcomes = meet_all([0, 1, 2], seconds=2.0, delays=[1.5, 0, 2.7])
  assert [type(each) for each in outcomes] == [list] * 3, outcomes


def test_process_that_ends_during_the_wait_is_missing():
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    first = pool.submit(rendezvous.meet, address, 3, 0, timeout_seconds=2)
    _go_early(port)
    other = pool.submit(rendezvous.meet, address, 3, 2, timeout_seconds=2)
    for future in (first, other):
      with pytest.raises(errors.DistributedError, match="for process 1, of 3"):
        future.result()


def test_process_restarted_during_the_wait():
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    first = pool.submit(rendezvous.meet, address, 3, 0, timeout_seconds=20)
    _go_early(port)
    others = [
      pool.submit(rendezvous.meet, address, 3, i, timeout_seconds=20)
      for i in (1, 2)
    ]
    found = [p for f in (first, *others) for p in f.result()]
  assert len(found) == 4
  for connection in found:
    connection.close()


def _go_early(port):
  """Connects as process 1, waits for the answer, and closes."""
  with _connect(port) as connection:
    connection = connection_lib.Connection(connection)
    connection.send(**HELLO | {"num_processes": 3})
    assert connection.receive(10)["waiting"] > 0


def test_messages_are_received_in_order_and_in_parts():
  here, there = (connection_lib.Connection(s) for s in _pair())
  here.send(a=1)
  here.send(b="two")
  assert there.receive(5) == {"a": 1}
  assert there.receive(5) == {"b": "two"}
  with pytest.raises(TimeoutError):
    there.receive(0.05)
  assert not there.has_gone()
  # Of a message that has begun nothing is lost.
  here.socket.sendall(b'{"a":')
  for seconds in (0.05, 0):
    with pytest.raises(TimeoutError):
      there.receive(seconds)
  here.socket.sendall(b" 3}\n")
  assert there.receive(5) == {"a": 3}
  here.socket.sendall(b"[" * 2000 + b"]" * 2000 + b"\n")
  with pytest.raises(ValueError, match="levels deep"):
    there.receive(5)
  here.socket.sendall(b"x" * 10_000)
  with pytest.raises(ValueError, match="too long"):
    there.receive(5)
  here.socket.close()
  there.socket.close()


def test_closed_connection():
  here, there = (connection_lib.Connection(s) for s in _pair())
  here.socket.close()
  assert there.receive(5) is None
  assert there.has_gone()
  # Nothing, not an error.
  for _ in range(3):
    there.send(a=1)
  there.socket.close()


def test_file_descriptors_above_1023():
  if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 1024:
    pytest.skip("this machine allows no more")
  here, there = _pair()
  number = fcntl.fcntl(there.fileno(), fcntl.F_DUPFD, 1024)
  there.close()
  connection = connection_lib.Connection(socket.socket(fileno=number))
  assert connection_lib.ready([connection], 0) == []
  assert not connection.has_gone()
  here.close()
  assert connection_lib.ready([connection], 5) == [connection]
  assert connection.has_gone()
  connection.close()


def _pair():
  with socket.create_server(("localhost", 0)) as server:
    here = socket.create_connection(server.getsockname())
    there, _ = server.accept()
  return here, there


def test_names_of_processes():
  assert rendezvous.name_processes([4]) == "process 4"
  assert rendezvous.name_processes([4, 5]) == "processes 4, 5"
  many = rendezvous.name_processes(range(64))
  assert many == "processes 0, 1, 2 and 61 more"
