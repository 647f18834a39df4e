"""CPU cores as devices, with one thread each."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING
from typing import Any

import jax

if TYPE_CHECKING:
  import threadpoolctl

# With more CPU devices each would get few images.
_MOST_CPU_DEVICES = 8
_COUNT_FLAG = "xla_force_host_platform_device_count"


def num_cores() -> int:
  """Returns the number of CPU cores that this process may use."""
  # Not available on every system.
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def use_cpu_cores(batch_size: int, *, limit_blas: bool = True) -> int | None:
  """Makes every core of a CPU a device, so that a step uses all cores.

  One CPU device computes mostly on one core (docs/decisions.md). Call this
  before JAX uses a device; accelerators are not affected. A number that JAX was
  configured with (JAX_NUM_CPU_DEVICES, or a flag in XLA_FLAGS) is kept.

  Each device is limited to one thread, also in BLAS (`limit_blas_threads`):
  where XLA spreads an operation over a pool of threads, the all-reduce after it
  waits on a thread of the pool, and the other device has been seen to never
  reach the all-reduce.

  Args:
    batch_size: number of images that the number of devices must divide.
    limit_blas: False where the caller does so while devices compute.

  Returns:
    The number of CPU devices requested; None if a number was configured.

  Raises:
    RuntimeError: JAX uses a device already, and no number was configured.
  """
  if limit_blas:
    limit_blas_threads()
  flags = os.getenv("XLA_FLAGS", "")
  if "xla_cpu_multi_thread_eigen" not in flags:
    one_thread = f"{flags} --xla_cpu_multi_thread_eigen=false"
  else:
    one_thread = flags
  # JAX adds the fields of its configuration at run time.
  config: Any = jax.config
  if config.jax_num_cpu_devices >= 0 or _COUNT_FLAG in flags:
    if config.jax_num_cpu_devices != 1:
      os.environ["XLA_FLAGS"] = one_thread
    return None
  candidates = range(1, min(num_cores(), _MOST_CPU_DEVICES) + 1)
  num_devices = max((n for n in candidates if batch_size % n == 0), default=1)
  jax.config.update("jax_num_cpu_devices", num_devices)
  if num_devices > 1:
    os.environ["XLA_FLAGS"] = one_thread
  return num_devices


def limit_blas_threads() -> threadpoolctl.threadpool_limits:
  """Limits BLAS and LAPACK in this process to one thread.

  XLA's CPU backend calls LAPACK for eigenvalues. The threads of LAPACK
  busy-wait for each other, and devices that call it at the same time have more
  threads than there are cores: a call of 0.7 ms has taken 800 ms.

  Returns:
    A context that lifts the limit at its end; without one it lasts.
  """
  import threadpoolctl

  # Loads the libraries that XLA uses: only loaded ones are limited.
  importlib.import_module("scipy.linalg.cython_lapack")
  return threadpoolctl.threadpool_limits(1, user_api="blas")
