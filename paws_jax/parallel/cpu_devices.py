"""CPU cores as devices, and BLAS held to one thread."""

from __future__ import annotations

import importlib
import os

import jax

# More CPU devices than this would get few images each.
_MOST_CPU_DEVICES = 8
_COUNT_FLAG = "xla_force_host_platform_device_count"


def num_cores() -> int:
  """CPU cores that this process may use."""
  # Not on every system.
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def use_cpu_cores(batch_size: int) -> int | None:
  """Makes every core of a CPU a device, so that a step uses them all.

  One CPU device computes mostly on one core (docs/decisions.md). To be called
  before JAX's first use of a device; accelerators are not affected. A number
  given to JAX itself (JAX_NUM_CPU_DEVICES, or a flag in XLA_FLAGS) is kept.

  Each device is held to one thread, also in the linear algebra that XLA leaves
  to BLAS (`hold_blas_to_one_thread`): where XLA spreads an operation over a
  pool, the all-reduce after it waits on a thread of the pool, and has kept the
  other device from ever getting there.

  Args:
    batch_size: images that the devices must divide.

  Returns:
    The number of CPU devices asked for, None where one had been given.
  """
  hold_blas_to_one_thread()
  flags = os.getenv("XLA_FLAGS", "")
  if "xla_cpu_multi_thread_eigen" not in flags:
    one_thread = f"{flags} --xla_cpu_multi_thread_eigen=false"
  else:
    one_thread = flags
  if jax.config.jax_num_cpu_devices >= 0 or _COUNT_FLAG in flags:
    if jax.config.jax_num_cpu_devices != 1:
      os.environ["XLA_FLAGS"] = one_thread
    return None
  candidates = range(1, min(num_cores(), _MOST_CPU_DEVICES) + 1)
  num_devices = max((n for n in candidates if batch_size % n == 0), default=1)
  jax.config.update("jax_num_cpu_devices", num_devices)
  if num_devices > 1:
    os.environ["XLA_FLAGS"] = one_thread
  return num_devices


def hold_blas_to_one_thread() -> None:
  """Lets every call of BLAS and LAPACK in this process use one thread.

  XLA's CPU backend calls LAPACK for eigenvalues. Its threads wait for each
  other spinning, and devices that call it at once have more of them than cores:
  what takes 0.7 ms has taken 800.
  """
  import threadpoolctl

  # What XLA will load, so that there is something to hold.
  importlib.import_module("scipy.linalg.cython_lapack")
  threadpoolctl.threadpool_limits(1, user_api="blas")
