"""A run of several processes: starting, and ending together.

With one process everything here returns at once.

*Ending.* A process that goes takes the others with it, see `watch` (where JAX
finds the others itself, by its heartbeat). One that meets an error must leave
by `exit_now`, since Python's ordinary exit waits for the others, minutes long,
while they wait for it; `initialize` sees to errors that nobody catches.

*Pre-emption.* With several processes a handler of our own must not decide when
to stop: each process would at its own step, and the others would hang in the
next collective. The rule: from `initialize` on SIGTERM belongs to JAX, which
tells all processes; `StopNotice`, asked wherever it is possible to stop, says
so at the same step everywhere, and nothing else may ask JAX. A handler for
SIGTERM that is installed before is replaced by JAX's and notices nothing; one
that is installed later (`terminal.Signals`) hides the notice from JAX, and
nobody stops. A handler for SIGINT may make the same of Ctrl-C:
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

# The one thing that a process has once, like JAX's own connection.
_watches: list[watchdog.Watch] = []


def initialize(
  launch: launch_lib.Launch | None,
  *,
  timeout_seconds: int = 300,
  heartbeat_timeout_seconds: int = 100,
) -> None:
  """Makes this process one of a run.

  To be called when the number of CPU devices has been set
  (`sharding.use_cpu_cores`), and before anything else of JAX. Afterwards
  `jax.devices()` are those of all processes. CPU devices talk over gloo, which
  is JAX's default.

  Args:
    launch: what `detect` has found; None, for a process that is alone, does
      nothing.
    timeout_seconds: how long to wait for the others.
    heartbeat_timeout_seconds: after how long without a sign of life JAX gives
      a process up, where the connection does not tell.

  Raises:
    DistributedError: processes that do not come, or were told something else,
      or have different numbers of devices.
  """
  if launch is None:
    return
  options: dict[str, Any] = {
    "initialization_timeout": timeout_seconds,
    "heartbeat_timeout_seconds": heartbeat_timeout_seconds,
  }
  if launch.coordinator_address is None:
    try:
      jax.distributed.initialize(**options)
    except (RuntimeError, ValueError, OSError) as error:
      raise errors.DistributedError(
        f"JAX cannot start a run of several processes ({launch.source}): "
        f"{error}"
      ) from error
  else:
    peers = rendezvous.meet(
      launch.coordinator_address,
      launch.num_processes,
      launch.process_id,
      timeout_seconds=timeout_seconds,
      run_id=launch.run_id,
    )
    # From here on a process that goes is noticed, also while JAX starts.
    _watches.append(watchdog.Watch(peers, process_id=launch.process_id))
    # Without "deactivate" JAX takes one GPU for each task of SLURM or Open MPI,
    # whatever `detect` has found.
    jax.distributed.initialize(
      coordinator_address=launch.coordinator_address,
      num_processes=launch.num_processes,
      process_id=launch.process_id,
      local_device_ids=launch.local_device_ids,
      cluster_detection_method="deactivate",
      **options,
    )
    # Before JAX's own, which waits for the others.
    atexit.register(_watches[-1].leave)
  _leave_on_errors()
  _check_devices()


def _leave_on_errors() -> None:
  """Makes an error that nobody catches end all processes."""
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
    listed = rendezvous.listed({i: str(counts[i]) for i in sorted(counts)})
    raise errors.DistributedError(
      f"the processes have different numbers of devices: {listed}. Give each "
      "the same (JAX_NUM_CPU_DEVICES, CUDA_VISIBLE_DEVICES, machines of one "
      "kind)."
    )


def is_main() -> bool:
  """Whether this is process 0, which prints and writes."""
  return jax.process_index() == 0


def barrier(name: str) -> None:
  """Waits until every process has come to the barrier of this name."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(name)


class StopNotice:
  """Tells all processes at once to stop, when one of them got a SIGTERM.

  Every process makes one for a run, and asks it equally often, each time at the
  same step. JAX agrees on the largest number of any process's last question
  plus one, and waits for that very number: questions are therefore counted,
  from 1, and not numbered by step, of which several lie between two questions,
  and of which a resumed run has many behind it.
  """

  def __init__(self):
    self._num_asked = 0

  def reached(self) -> bool:
    """Whether to stop now; the same in every process.

    Always False with a single process, whose own handler decides
    (`terminal.Signals`).
    """
    if jax.process_count() == 1:
      return False
    self._num_asked += 1
    return multihost_utils.reached_preemption_sync_point(self._num_asked)


def exit_now(status: int) -> None:
  """Ends this process of several at once; the others then stop, too.

  For a process that has met an error, and has said so: Python's ordinary exit
  would wait for the others, which wait for this one. A process that is alone
  exits as usual.

  Raises:
    SystemExit: with one process.
  """
  if not jax.distributed.is_initialized():
    sys.exit(status)
  for each in _watches:
    each.fail(status)
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):
      stream.flush()
  os._exit(status)
