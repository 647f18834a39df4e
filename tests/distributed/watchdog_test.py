"""A process that goes takes the others with it, and they say why."""

import contextlib
import socket
import threading

import pytest

from paws_jax.distributed import connection
from paws_jax.distributed import watchdog


def go(*peers):
  """What the system does for a process that ends."""
  for peer in peers:
    with contextlib.suppress(OSError):
      peer.socket.shutdown(socket.SHUT_RDWR)


class Run:
  """Watches of three processes, all in this one."""

  def __init__(self):
    self.statuses = {}
    self.ended = {i: threading.Event() for i in range(3)}
    with socket.create_server(("localhost", 0)) as server:
      ends = []
      for _ in range(2):
        there = socket.create_connection(server.getsockname())
        ends.append((server.accept()[0], there))
    self.here = [
      connection.Peer(end, f"process {i + 1} (host{i + 1})")
      for i, (end, _) in enumerate(ends)
    ]
    self.there = [connection.Peer(end) for _, end in ends]
    self.watches = [
      self._watch(0, self.here),
      self._watch(1, self.there[:1]),
      self._watch(2, self.there[1:]),
    ]

  def _watch(self, number, peers):
    def end(status):
      self.statuses[number] = status
      go(*peers)
      self.ended[number].set()

    return watchdog.Watch(peers, process_id=number, end=end)

  def close(self):
    go(*self.here, *self.there)
    for each in self.watches:
      each.join(10)
    for peer in self.here + self.there:
      peer.socket.close()


@pytest.fixture
def run(monkeypatch):
  monkeypatch.setattr(socket, "gethostname", lambda: "Node-A")
  monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.1)
  run = Run()
  yield run
  for each in run.watches:
    each.leave()
  run.close()


def test_a_process_goes_without_a_word(run, capfd):
  go(run.there[0])
  assert run.ended[0].wait(10)
  assert run.ended[2].wait(10)
  assert run.statuses[0] == run.statuses[2] == 1
  written = capfd.readouterr().err
  # Process 2 hears of it through process 0.
  assert written.count("error: process 1 (host1) has gone without a word") == 2
  assert "Process 0 (Node-A) stops, too" in written
  assert "Process 2 (Node-A) stops, too" in written
  assert "goes on from the last checkpoint" in written


def test_a_process_fails(run, capfd):
  run.watches[1].fail(3)
  assert run.ended[0].wait(10)
  assert run.ended[2].wait(10)
  assert not run.ended[1].is_set()
  text = "error: process 1 (Node-A) has ended with an error, status 3; see its"
  assert capfd.readouterr().err.count(text) == 2


def test_a_process_that_fails_since_another_has_gone(run, capfd):
  go(run.there[0])
  # As where gloo has raised.
  run.watches[0].fail(1)
  assert run.ended[2].wait(10)
  written = capfd.readouterr().err
  assert written.count("process 1 (host1) has gone without a word") == 2
  assert "status 1" not in written


def test_process_0_goes(run, capfd):
  # Killed, it watches nothing any more.
  run.watches[0].leave = lambda: None
  run.watches[0]._leaving.set()
  go(*run.here)
  assert run.ended[1].wait(10)
  assert run.ended[2].wait(10)
  assert capfd.readouterr().err.count("process 0 has gone without a word") == 2


def test_processes_that_are_done_stop_nobody(run, capfd):
  for each in run.watches:
    each.leave()
  go(*run.here, *run.there)
  for ended in run.ended.values():
    assert not ended.wait(0.2)
  assert capfd.readouterr().err == ""


def test_one_is_done_and_another_goes(run):
  run.watches[1].leave()
  go(run.there[0])
  assert not run.ended[0].wait(0.3)
  go(run.there[1])
  assert run.ended[0].wait(10)


def test_process_0_lets_the_others_go_first(run, monkeypatch):
  monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 5.0)
  thread = threading.Thread(target=run.watches[0].fail, args=(1,))
  thread.start()
  thread.join(0.5)
  assert thread.is_alive()
  go(*run.there)
  thread.join(5)
  assert not thread.is_alive()
