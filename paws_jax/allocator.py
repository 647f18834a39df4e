"""How a CPU process keeps the memory that one step frees for the next."""

from __future__ import annotations

import ctypes
import platform

import jax

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_MOST = 2**31 - 1


def keep_freed_memory() -> bool:
  """Where JAX computes on a CPU, lets glibc keep what is freed.

  XLA frees the buffers of a step at its end. glibc gives large ones back to the
  system, and each of their pages then costs a page fault at the next step: a
  fifth of a small network's step (benchmarks/RESULTS.md). The process holds
  what it once needed until its end.

  Returns:
    Whether there is a glibc that took both settings.
  """
  if jax.default_backend() != "cpu" or platform.libc_ver()[0] != "glibc":
    return False
  mallopt = ctypes.CDLL(None).mallopt
  return bool(mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, _MOST))
