"""Start of a run of several processes, and its common end.

With one process every function here returns at once.

*Errors.* A process that ends also ends the others, see `watchdog`. A process
that meets an error must leave by `exit_now`: Python's ordinary exit waits up to
five minutes for the others, which wait for it. `initialize` arranges this for
errors that nobody catches.

*Pre-emption.* With several processes no handler of our own may decide when to
stop: each process would stop at its own step, and the others would hang in the
next collective. So from `initialize` on SIGTERM belongs to JAX, which notifies
all processes; `StopNotice`, asked wherever it is possible to stop, gives the
same answer at the same step everywhere, and nothing else may ask JAX. A handler
for SIGTERM that is installed before is replaced by JAX's; one that is installed
later (`runs.signals`) hides the signal from JAX, and nobody stops. A handler
for SIGINT may turn Ctrl-C into the same:
`os.kill(os.getpid(), signal.SIGTERM)`.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import os
import sys
import types
from typing import Any

import jax
from jax.experimental import multihost_utils

from paws_jax import errors
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import rendezvous
from paws_jax.distributed import watchdog

# Share of JAX's heartbeat timeout after which `watchdog` gives up a process
# that is silent: JAX itself would abort with a stack trace.
_SILENCE = 0.6
# One per process at most, like JAX's own connection.
_watchdogs: list[watchdog.Watchdog] = []


def initialize(
  launch: launch_lib.Launch | None,
  *,
  timeout_seconds: int = 300,
  heartbeat_timeout_seconds: int = 100,
) -> None:
  """Makes this process one of a run.

  Called after the number of CPU devices is set (`cpu_devices.use_cpu_cores`),
  and before anything else of JAX. Afterwards `jax.devices()` lists the devices
  of all processes. CPU devices communicate through gloo, JAX's default.

  Args:
    launch: the result of `launch.detect`; with None, for a single process,
      nothing happens.
    timeout_seconds: how long to wait for the others.
    heartbeat_timeout_seconds: silence after which JAX gives a process up, where
      its connection stays open.

  Raises:
    DistributedError: when processes do not come, disagree, or have different
      numbers of devices.
  """
  if launch is None:
    return
  _check_system()
  options: dict[str, Any] = {
    "initialization_timeout": timeout_seconds,
    "heartbeat_timeout_seconds": heartbeat_timeout_seconds,
  }
  address, size = launch.coordinator_address, launch.num_processes
  rank = launch.process_id
  if address is None or size is None or rank is None:
    _detect_and_initialize(launch.source, options)
  else:
    connections = rendezvous.meet(
      address,
      size,
      rank,
      timeout_seconds=timeout_seconds,
      run_id=launch.run_id,
    )
    # Notices a process that ends, also while JAX starts.
    silence = _SILENCE * heartbeat_timeout_seconds
    _watchdogs.append(watchdog.Watchdog(connections, rank, silence))
    # Without "deactivate" JAX takes one GPU for each task of SLURM or Open MPI,
    # whatever `detect` has found.
    jax.distributed.initialize(
      coordinator_address=address,
      num_processes=size,
      process_id=rank,
      local_device_ids=launch.local_device_ids,
      cluster_detection_method="deactivate",
      **options,
    )
    # Before JAX's own, which waits for the others.
    atexit.register(_watchdogs[-1].leave)
  _leave_on_errors()
  _check_devices()


def _check_system() -> None:
  if sys.platform == "win32":
    raise errors.DistributedError(
      "a run of several processes is not supported on Windows: use one "
      "process, or Linux (WSL 2 is enough)."
    )


def _detect_and_initialize(source: str, options: dict[str, Any]) -> None:
  """Lets JAX detect the other processes, and connects to them."""
  try:
    jax.distributed.initialize(**options)
  except (RuntimeError, ValueError, OSError) as error:
    raise errors.DistributedError(
      f"JAX cannot start a run of several processes ({source}): {error}"
    ) from error


def _leave_on_errors() -> None:
  """Makes an uncaught error end all processes."""
  show = sys.excepthook

  def hook(
    kind: type[BaseException],
    error: BaseException,
    traceback: types.TracebackType | None,
  ) -> None:
    show(kind, error, traceback)
    exit_now(1)

  sys.excepthook = hook


def _check_devices() -> None:
  """Refuses processes with different numbers of devices."""
  counts = collections.Counter(d.process_index for d in jax.devices())
  if len(set(counts.values())) > 1:
    listed = rendezvous.list_values({i: str(counts[i]) for i in sorted(counts)})
    raise errors.DistributedError(
      f"the processes have different numbers of devices: {listed}. Give each "
      "the same (JAX_NUM_CPU_DEVICES, CUDA_VISIBLE_DEVICES, machines of one "
      "kind)."
    )


def is_main() -> bool:
  """Whether this is process 0, which prints and writes files."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has reached the barrier of this name."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


class StopNotice:
  """Common answer of all processes to "stop now?", after a SIGTERM to one.

  Every process makes one for a run and asks it equally often, each time at the
  same step. JAX agrees on the largest number of any process's last question
  plus one, and waits for exactly this number. Questions are therefore counted
  from 1, not numbered by the step: several steps lie between two questions, and
  a resumed run starts at a large one.
  """

  def __init__(self) -> None:
    self._num_asked = 0

  def reached(self) -> bool:
    """Whether to stop now; the same on every process.

    Always False with a single process, whose own handler decides
    (`runs.signals`).
    """
    if jax.process_count() == 1:
      return False
    self._num_asked += 1
    return multihost_utils.reached_preemption_sync_point(self._num_asked)


def exit_now(status: int) -> None:
  """Ends this process at once, and thereby the others.

  For a process that has reported an error: Python's ordinary exit would wait
  for the others, which wait for this one. A single process exits as usual.

  Raises:
    SystemExit: with one process.
  """
  if not jax.distributed.is_initialized():
    sys.exit(status)
  for each in _watchdogs:
    each.fail(status)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(status)
