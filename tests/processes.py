"""Runs of several Python processes on this machine, for tests.

  with processes.start_main(["--config=..."], num_processes=2) as group:
    group.wait_for_output(0, "step 3", seconds=60)
    group.send(1, signal.SIGKILL)
    finished = group.wait(seconds=120)

Each process has its own CPU devices, and knows the others by the flags of
paws_jax.main. None outlives the `with`.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from collections.abc import Sequence

ROOT = pathlib.Path(__file__).parents[1]

# What says that a process is one of several; a test may itself run in a job.
_LAUNCHERS = (
  "SLURM_",
  "OMPI_",
  "PMIX_",
  "PRTE_",
  "TPU_",
  "MEGASCALE_",
  "MASTER_",
  "WORLD_SIZE",
  "RANK",
  "LOCAL_RANK",
  "XLA_FLAGS",
  "JAX_",
)
# Where compiled programs are kept: where the tests keep theirs.
_CACHE = (
  "JAX_COMPILATION_CACHE_DIR",
  "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


@dataclasses.dataclass(frozen=True)
class Finished:
  """A process that has ended.

  Attributes:
    status: exit status; minus the signal that killed it. None: it had to be
      killed when the time was up.
    out: its standard output.
    err: its standard error.
    seconds: from its start to its end, to about 0.05.
  """

  status: int | None
  out: str
  err: str
  seconds: float


class Group:
  """Processes that were started together, numbered from 0."""

  def __init__(
    self,
    commands: Sequence[Sequence[str]],
    *,
    devices: int,
    environ: Mapping[str, str],
  ):
    """Starts one process a command."""
    self._directory = tempfile.TemporaryDirectory()
    self._started = time.monotonic()
    self._ended: dict[int, float] = {}
    env = {
      **{k: v for k, v in os.environ.items() if not k.startswith(_LAUNCHERS)},
      **compilation_cache(),
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(devices),
      "PYTHONUNBUFFERED": "1",
      "TF_CPP_MIN_LOG_LEVEL": "2",
      **environ,
    }
    self._processes = []
    for number, command in enumerate(commands):
      # Files, since a pipe that nobody reads stops its writer.
      with (
        self._path(number, "out").open("wb") as out,
        self._path(number, "err").open("wb") as err,
      ):
        self._processes.append(
          subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
          )
        )

  def __enter__(self) -> Group:
    return self

  def __exit__(self, *_) -> None:
    self._kill_all()
    self._directory.cleanup()

  def _path(self, number: int, stream: str) -> pathlib.Path:
    return pathlib.Path(self._directory.name) / f"{number}.{stream}"

  def output(self, number: int, stream: str = "out") -> str:
    """What a process has written so far to "out" or "err"."""
    return self._path(number, stream).read_text(errors="replace")

  def wait_for_output(
    self, number: int, text: str, *, seconds: float = 60, stream: str = "out"
  ) -> None:
    """Returns once a process has written `text`; fails if it does not."""
    deadline = time.monotonic() + seconds
    while text not in self.output(number, stream):
      ended = self._processes[number].poll() is not None
      if ended and text in self.output(number, stream):
        return
      if ended or time.monotonic() > deadline:
        raise AssertionError(
          f"process {number} has not written {text!r} but:\n"
          f"{self.output(number)}\n{self.output(number, 'err')}"
        )
      time.sleep(0.02)

  def wait_for_end(self, number: int, *, seconds: float) -> None:
    """Returns once a process has ended; fails if it does not."""
    self._processes[number].wait(seconds)

  def send(self, number: int, signal_number: signal.Signals) -> None:
    """Sends a signal to a process."""
    self._processes[number].send_signal(signal_number)

  def wait(self, *, seconds: float) -> list[Finished]:
    """Waits until all have ended; kills those that have not by then."""
    deadline = time.monotonic() + seconds
    while self._note_ends() < len(self._processes):
      if time.monotonic() > deadline:
        break
      time.sleep(0.02)
    late = {n for n, p in enumerate(self._processes) if n not in self._ended}
    self._kill_all()
    self._note_ends()
    return [
      Finished(
        status=None if number in late else process.returncode,
        out=self.output(number),
        err=self.output(number, "err"),
        seconds=self._ended[number] - self._started,
      )
      for number, process in enumerate(self._processes)
    ]

  def _note_ends(self) -> int:
    """How many have ended; remembers when."""
    for number, process in enumerate(self._processes):
      if number not in self._ended and process.poll() is not None:
        self._ended[number] = time.monotonic()
    return len(self._ended)

  def _kill_all(self) -> None:
    for process in self._processes:
      if process.poll() is None:
        process.kill()
      process.wait()


def compilation_cache() -> dict[str, str]:
  """Environment variables that give a process the cache of the tests."""
  return {k: os.environ[k] for k in _CACHE if k in os.environ}


def free_port() -> int:
  """A port that nobody listened on a moment ago."""
  with socket.socket() as listener:
    listener.bind(("localhost", 0))
    return listener.getsockname()[1]


def flags(process_id: int, num_processes: int, port: int) -> list[str]:
  """What tells paws_jax.main which process it is; nothing if there is one."""
  if num_processes == 1:
    return []
  return [
    f"--coordinator_address=localhost:{port}",
    f"--num_processes={num_processes}",
    f"--process_id={process_id}",
  ]


def start_main(
  arguments: Sequence[str],
  *,
  num_processes: int,
  devices: int = 2,
  environ: Mapping[str, str] | None = None,
) -> Group:
  """Starts `python -m paws_jax.main` so many times, as processes of one run.

  Args:
    arguments: flags for all of them.
    num_processes: with 1 it gets no flags for a run of several.
    devices: CPU devices of each.
    environ: more environment variables.
  """
  port = free_port()
  commands = [
    ["-m", "paws_jax.main", *arguments, *flags(number, num_processes, port)]
    for number in range(num_processes)
  ]
  return Group(commands, devices=devices, environ=environ or {})


def start_code(
  code: str,
  *,
  num_processes: int,
  devices: int = 1,
  environ: Mapping[str, str] | None = None,
) -> Group:
  """Starts Python code so many times.

  It finds its number, the number of processes, and a free port of this machine
  in sys.argv[1:]; further arguments as in `start_main`.
  """
  port = free_port()
  commands = [
    ["-c", code, str(number), str(num_processes), str(port)]
    for number in range(num_processes)
  ]
  return Group(commands, devices=devices, environ=environ or {})


def lines(finished: Finished) -> list[str]:
  """What a process has printed, but for what gloo prints in between."""
  out = re.sub(r"\[Gloo\].*?peer ranks is : \d+\n", "", finished.out)
  return out.splitlines()
