"""Processes find each other, or learn in words why they do not."""

import concurrent.futures
import socket
import threading
import time

import pytest

from paws_jax import rendezvous
from tests import processes


def meet_all(ids, nums=None, *, seconds=20.0, delays=None):
  """Outcomes of `meet` in one thread each: connections, or the error."""
  address = f"localhost:{processes.free_port()}"
  nums = nums or [len(ids)] * len(ids)

  def meet(number, num, delay):
    time.sleep(delay)
    try:
      return rendezvous.meet(address, num, number, timeout_seconds=seconds)
    except rendezvous.DistributedError as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(len(ids)) as pool:
    outcomes = list(pool.map(meet, ids, nums, delays or [0] * len(ids)))
  for outcome in outcomes:
    for peer in outcome if isinstance(outcome, list) else []:
      peer.socket.close()
  return outcomes


@pytest.mark.parametrize("delays", [None, [0, 0.3, 0.1], [0.3, 0, 0]])
def test_all_meet(delays):
  first, *others = meet_all([0, 1, 2], delays=delays)
  host = socket.gethostname()
  names = [peer.name for peer in first]
  assert names == [f"process 1 ({host})", f"process 2 ({host})"]
  assert [[peer.name for peer in other] for other in others] == [
    ["process 0"],
    ["process 0"],
  ]


def test_the_port_is_free_again():
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(2) as pool:
    meet = lambda i: rendezvous.meet(address, 2, i, timeout_seconds=20)  # noqa: E731
    found = [peer for peers in pool.map(meet, range(2)) for peer in peers]
  # With the connections still open.
  socket.create_server(("", port)).close()
  for peer in found:
    peer.socket.close()


def test_some_do_not_come():
  outcomes = meet_all([0, 2], [4, 4], seconds=1.0)
  # The one that has come is told the same.
  assert outcomes[0] == outcomes[1]
  assert "has waited 1 s for processes 1, 3, of 4" in outcomes[0]
  assert "whether all were started" in outcomes[0]


def test_process_0_does_not_come():
  (outcome,) = meet_all([1], [2], seconds=1.0)
  assert f"process 1 ({socket.gethostname()}) has tried for 1 s" in outcome
  assert "reach process 0 at localhost:" in outcome
  assert "refused" in outcome
  assert "firewall" in outcome


def test_an_unknown_machine():
  with pytest.raises(rendezvous.DistributedError, match=r"at nowhere\.invalid"):
    rendezvous.meet("nowhere.invalid:1", 2, 1, timeout_seconds=0.3)


@pytest.mark.parametrize("nums", [[2, 3], [3, 2]])
def test_numbers_of_processes_that_disagree(nums):
  start = time.monotonic()
  outcomes = meet_all([0, 1], nums)
  assert time.monotonic() - start < 10
  assert outcomes[0] == outcomes[1]
  host = socket.gethostname()
  assert (
    f"process 1 ({host}) was told that there are {nums[1]} processes, process "
    f"0 ({host}) that there are {nums[0]}: start all with the same"
  ) in outcomes[0]


def test_two_of_the_same_number():
  outcomes = meet_all([0, 1, 1])
  assert len(set(outcomes)) == 1
  assert "two processes are number 1" in outcomes[0]


def test_a_port_that_is_taken():
  with socket.create_server(("", 0)) as server:
    address = f"localhost:{server.getsockname()[1]}"
    with pytest.raises(rendezvous.DistributedError, match="cannot listen on"):
      rendezvous.meet(address, 2, 0, timeout_seconds=5)


def test_something_else_answers(monkeypatch):
  monkeypatch.setattr(rendezvous, "_EXTRA_SECONDS", 0.2)
  with socket.create_server(("localhost", 0)) as server:

    def answer():
      connection, _ = server.accept()
      with connection:
        connection.recv(9999)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    address = f"localhost:{server.getsockname()[1]}"
    with pytest.raises(rendezvous.DistributedError, match="is not process 0"):
      rendezvous.meet(address, 2, 1, timeout_seconds=3)
    thread.join()


def test_strangers_do_not_matter():
  port = processes.free_port()
  address = f"localhost:{port}"

  def strangers():
    time.sleep(0.2)
    for words in (b"GET / HTTP/1.1\r\n\r\n", b"", b"[1]\n", b'{"host": 1}\n'):
      with socket.create_connection(("localhost", port), timeout=5) as stranger:
        stranger.sendall(words)
    return rendezvous.meet(address, 2, 1, timeout_seconds=20)

  with concurrent.futures.ThreadPoolExecutor(1) as pool:
    other = pool.submit(strangers)
    found = rendezvous.meet(address, 2, 0, timeout_seconds=20)
    assert [peer.name[:9] for peer in found] == ["process 1"]
    for peer in found + other.result():
      peer.socket.close()


def test_one_that_was_started_again_before_all_had_come():
  port = processes.free_port()
  address = f"localhost:{port}"
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    first = pool.submit(rendezvous.meet, address, 3, 0, timeout_seconds=20)
    with pytest.raises(rendezvous.DistributedError):
      _go_early(port)
    others = [
      pool.submit(rendezvous.meet, address, 3, i, timeout_seconds=20)
      for i in (1, 2)
    ]
    found = [p for f in (first, *others) for p in f.result()]
  assert len(found) == 4
  for peer in found:
    peer.socket.close()


def _go_early(port):
  """Says that it is process 1, and goes."""
  deadline = time.monotonic() + 10
  while time.monotonic() < deadline:
    try:
      connection = socket.create_connection(("localhost", port), timeout=5)
    except OSError:
      time.sleep(0.05)
      continue
    peer = rendezvous.Peer(connection)
    peer.say(process_id=1, num_processes=3, host="here")
    time.sleep(0.2)
    connection.close()
    raise rendezvous.DistributedError("gone")


def test_messages():
  here, there = (rendezvous.Peer(s) for s in _pair())
  here.say(a=1)
  here.say(b="two")
  assert there.hear(5) == {"a": 1}
  assert there.hear(5) == {"b": "two"}
  with pytest.raises(TimeoutError):
    there.hear(0.05)
  assert not there.has_gone()
  here.socket.sendall(b"x" * 10_000)
  with pytest.raises(ValueError, match="too long"):
    there.hear(5)
  here.socket.close()
  there.socket.close()


def test_a_peer_that_has_gone():
  here, there = (rendezvous.Peer(s) for s in _pair())
  here.socket.close()
  assert there.hear(5) is None
  assert there.has_gone()
  # Nothing, not an error.
  for _ in range(3):
    there.say(a=1)
  there.socket.close()


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
