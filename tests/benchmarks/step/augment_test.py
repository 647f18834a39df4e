"""What benchmarks/step/augment.py does to be fair on a CPU."""

import os
import pathlib
import subprocess
import sys

import pytest

from paws_jax.parallel import cpu_devices

_ROOT = pathlib.Path(__file__).parents[3]
_HELD = """
import os
import pathlib

from benchmarks.step import augment
import jax

jax.numpy.ones(3).sum()
assert augment._hold_to_one_core() == 1
for thread in pathlib.Path("/proc/self/task").iterdir():
  print(thread.name, *os.sched_getaffinity(int(thread.name)))
"""
_CANNOT_HOLD = """
import os
import runpy

if hasattr(os, "sched_setaffinity"):
  del os.sched_setaffinity
runpy.run_module("benchmarks.step.augment", run_name="__main__")
"""


def _run_code(code):
  return subprocess.run(
    [sys.executable, "-c", code],
    cwd=_ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )


@pytest.mark.slow
@pytest.mark.skipif(
  not hasattr(os, "sched_setaffinity") or cpu_devices.num_cores() < 2,
  reason="needs Linux and two cores",
)
def test_all_threads_are_held_to_one_core():
  result = _run_code(_HELD)
  assert result.returncode == 0, result.stderr
  threads = [line.split()[1:] for line in result.stdout.splitlines()]
  # JAX's are among them.
  assert len(threads) > 1
  assert all(cores == threads[0] and len(cores) == 1 for cores in threads)


@pytest.mark.slow
def test_a_system_that_cannot_hold_threads_is_refused():
  result = _run_code(_CANNOT_HOLD)
  assert result.returncode == 2
  assert "error: on a CPU both sides are held to one core" in result.stderr
