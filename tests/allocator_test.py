"""Keeping freed memory: what glibc is asked for, and that it helps."""

import platform
import subprocess
import sys

import jax
import pytest

from paws_jax import allocator

_GLIBC = platform.libc_ver()[0] == "glibc"
# Memory of 32 MB is taken, touched and freed; prints page faults of 20 turns.
_PROGRAM = """
import ctypes, resource, sys
from paws_jax import allocator
if sys.argv[1] == "kept":
  assert allocator.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
def turn():
  memory = libc.malloc(ctypes.c_size_t(2**25))
  ctypes.memset(memory, 1, 2**25)
  libc.free(ctypes.c_void_p(memory))
turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
  turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def _page_faults(kind):
  done = subprocess.run(
    [sys.executable, "-c", _PROGRAM, kind],
    capture_output=True,
    text=True,
    check=True,
  )
  return int(done.stdout)


@pytest.mark.skipif(not _GLIBC, reason="another C library than glibc")
def test_memory_that_is_freed_is_used_again_without_page_faults():
  returned, kept = _page_faults("returned"), _page_faults("kept")
  assert returned > 20 * 2**25 / 2**22
  assert kept < returned / 10


@pytest.mark.parametrize(
  ("backend", "library"), [("gpu", "glibc"), ("cpu", "musl"), ("cpu", "")]
)
def test_elsewhere_nothing_is_asked_for(monkeypatch, backend, library):
  monkeypatch.setattr(jax, "default_backend", lambda: backend)
  monkeypatch.setattr(platform, "libc_ver", lambda: (library, "1"))
  monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: 1 / 0)
  assert not allocator.keep_freed_memory()
