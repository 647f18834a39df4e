"""A process that ends also ends the others, which report why."""

import contextlib
import socket
import threading
import time

import pytest

from paws_jax.distributed import connection as connection_lib
from paws_jax.distributed import watchdog


def shut(*connections):
  """Shuts the connections, as the system does when a process ends."""
  for connection in connections:
    with contextlib.suppress(OSError):
      connection.socket.shutdown(socket.SHUT_RDWR)


class Run:
  """Watchdogs of three processes, all in this one."""

  def __init__(self, silence_seconds=60.0):
    self.silence_seconds = silence_seconds
    self.statuses = {}
    self.ended = {i: threading.Event() for i in range(3)}
    with socket.create_server(("localhost", 0)) as server:
      ends = []
      for _ in range(2):
        there = socket.create_connection(server.getsockname())
        ends.append((server.accept()[0], there))
    self.here = [
      connection_lib.Connection(end, f"process {i + 1} (host{i + 1})")
      for i, (end, _) in enumerate(ends)
    ]
    self.there = [connection_lib.Connection(end) for _, end in ends]
    self.watchdogs = [
      self._watch(0, self.here),
      self._watch(1, self.there[:1]),
      self._watch(2, self.there[1:]),
    ]

  def _watch(self, number, connections):
    def end(status):
      self.statuses[number] = status
      shut(*connections)
      self.ended[number].set()

    return watchdog.Watchdog(connections, number, self.silence_seconds, end=end)

  def close(self):
    shut(*self.here, *self.there)
    for each in self.watchdogs:
      each.join(10)
    for connection in self.here + self.there:
      connection.socket.close()


@pytest.fixture
def run(request, monkeypatch):
  monkeypatch.setattr(socket, "gethostname", lambda: "Node-A")
  monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 0.1)
  run = Run(*getattr(request, "param", ()))
  yield run
  for each in run.watchdogs:
    each.leave()
  run.close()


def test_process_ends_without_a_message(run, capfd):
  shut(run.there[0])
  assert run.ended[0].wait(10)
  assert run.ended[2].wait(10)
  assert run.statuses[0] == run.statuses[2] == 1
  written = capfd.readouterr().err
  # Process 2 learns it from process 0.
  assert (
    written.count("error: process 1 (host1) has ended without a message") == 2
  )
  assert "Process 0 (Node-A) stops, too" in written
  assert "Process 2 (Node-A) stops, too" in written
  assert "continues from the last checkpoint" in written


def test_process_fails(run, capfd):
  run.watchdogs[1].fail(3)
  assert run.ended[0].wait(10)
  assert run.ended[2].wait(10)
  assert not run.ended[1].is_set()
  text = "error: process 1 (Node-A) has ended with an error, status 3; see its"
  assert capfd.readouterr().err.count(text) == 2


def test_process_fails_because_another_has_ended(run, capfd):
  shut(run.there[0])
  # As where gloo has raised.
  run.watchdogs[0].fail(1)
  assert run.ended[2].wait(10)
  written = capfd.readouterr().err
  assert written.count("process 1 (host1) has ended without a message") == 2
  assert "status 1" not in written


def test_process_0_ends(run, capfd):
  # A killed process watches nothing any more.
  run.watchdogs[0].leave = lambda: None
  run.watchdogs[0]._leaving.set()
  shut(*run.here)
  assert run.ended[1].wait(10)
  assert run.ended[2].wait(10)
  assert (
    capfd.readouterr().err.count("process 0 has ended without a message") == 2
  )


def test_processes_that_are_done_end_nobody(run, capfd):
  for each in run.watchdogs:
    each.leave()
  shut(*run.here, *run.there)
  for ended in run.ended.values():
    assert not ended.wait(0.2)
  assert capfd.readouterr().err == ""


def test_one_is_done_and_another_ends(run):
  run.watchdogs[1].leave()
  shut(run.there[0])
  assert not run.ended[0].wait(0.3)
  shut(run.there[1])
  assert run.ended[0].wait(10)


def test_process_0_lets_the_others_end_first(run, monkeypatch):
  monkeypatch.setattr(watchdog, "_GRACE_SECONDS", 5.0)
  thread = threading.Thread(target=run.watchdogs[0].fail, args=(1,))
  thread.start()
  thread.join(0.5)
  assert thread.is_alive()
  shut(*run.there)
  thread.join(5)
  assert not thread.is_alive()


def _stop_sending(monkeypatch, *connections):
  """Nothing comes from these ends any more, as from a stopped process."""
  for connection in connections:
    monkeypatch.setattr(connection, "send", lambda **_: None)


@pytest.mark.parametrize("run", [(0.3,)], indirect=True)
@pytest.mark.parametrize("stopped", [0, 1])
def test_process_is_silent(run, stopped, monkeypatch, capfd):
  _stop_sending(monkeypatch, *(run.there[:1] if stopped else run.here))
  others = {0, 1, 2} - {stopped}
  for number in others:
    assert run.ended[number].wait(10)
    assert run.statuses[number] == 1
  written = capfd.readouterr().err
  name = "process 1 (host1)" if stopped else "process 0"
  assert f"error: {name} has sent nothing for 0 s: it is stopped" in written
  for number in others:
    assert f"Process {number} (Node-A) stops, too" in written


@pytest.mark.parametrize("run", [(0.6,)], indirect=True)
def test_processes_that_send_are_not_silent(run, capfd):
  for ended in run.ended.values():
    assert not ended.wait(0.3)
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("run", [(0.6,)], indirect=True)
def test_nobody_is_silent_while_all_are_stopped(run, monkeypatch, capfd):
  """A job that is suspended and continued: time has passed for nobody."""
  clock = time.monotonic
  ahead = [0.0]
  monkeypatch.setattr(time, "monotonic", lambda: clock() + ahead[0])
  ahead[0] = 3600.0
  for ended in run.ended.values():
    assert not ended.wait(0.1)
  assert capfd.readouterr().err == ""


@pytest.mark.parametrize("run", [(300.0,)], indirect=True)
def test_messages_that_come_together_are_all_read(run, capfd):
  run.there[0].socket.sendall(
    b'{"alive": true}\n{"failed": "process 1 is out of paper"}\n'
  )
  # Before process 1 sends the next one, which would do.
  assert run.ended[0].wait(10)
  assert "error: process 1 is out of paper" in capfd.readouterr().err
