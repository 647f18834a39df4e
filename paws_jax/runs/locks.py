"""Locks of files between processes, where the system has them."""

from __future__ import annotations

import types

fcntl: types.ModuleType | None
try:
  import fcntl
except ImportError:
  # Windows: files are used without locks.
  fcntl = None

AVAILABLE = fcntl is not None


def hold(descriptor: int, *, shared: bool = False, wait: bool = True) -> None:
  """Locks an open file until it is closed.

  Without `fcntl`, and on a file system without locks, it does nothing.

  Args:
    descriptor: of the file.
    shared: whether several may hold the lock, and no one that is not shared.
    wait: whether to wait for others.

  Raises:
    BlockingIOError: without `wait`, another process holds the lock.
  """
  if fcntl is None:
    return
  kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
  try:
    fcntl.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
  except BlockingIOError:
    raise
  except OSError:
    # Not every file system knows locks.
    pass
