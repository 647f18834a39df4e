"""Rates of things that take turns, and what a number must be quoted with."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import flax
import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

from paws_jax import sharding


def print_setting(**versions: str) -> None:
  """Prints devices and versions.

  Args:
    **versions: of more packages than Python, JAX and Flax.
  """
  logging.set_verbosity(logging.WARNING)
  device = jax.devices()[0]
  print(
    f"device: {jax.device_count()} x {device.device_kind} ({device.platform}), "
    f"{sharding.num_cores()} CPU cores"
  )
  versions = {
    "python": platform.python_version(),
    "jax": jax.__version__,
    "flax": flax.__version__,
    **versions,
  }
  print("versions: " + ", ".join(f"{k} {v}" for k, v in versions.items()))


def compiled(name: str, call: Any, *arguments: Any) -> Any:
  """Compiles a jitted function for its arguments; prints how long it took.

  Once from nothing, and once more as a second process would, with what the
  first time has left on disk.
  """
  seconds = []
  traced = call.trace(*arguments)
  before = jax.config.jax_compilation_cache_dir
  with tempfile.TemporaryDirectory() as directory:
    jax.config.update("jax_compilation_cache_dir", directory)
    compilation_cache.reset_cache()
    try:
      for _ in range(2):
        jax.clear_caches()
        lowered = traced.lower()
        start = time.perf_counter()
        program = lowered.compile()
        seconds.append(time.perf_counter() - start)
    finally:
      jax.config.update("jax_compilation_cache_dir", before)
      compilation_cache.reset_cache()
  cold, warm = seconds
  print(f"compile: {name} {cold:.1f} s, kept on disk {warm:.1f} s", flush=True)
  return program


def in_turns(
  sides: Mapping[str, Callable[[int], int]],
  *,
  windows: int,
  steps: int,
  warmup: int,
) -> dict[str, list[float]]:
  """Measures several sides window by window: machines change their speed.

  Args:
    sides: each takes at least so many steps, waits for them, and returns how
      many it took.
    windows: times that each is measured.
    steps: of a window.
    warmup: steps of each before the first window.

  Returns:
    Seconds per step of each side, one number a window.
  """
  for run in sides.values():
    if warmup:
      run(warmup)
  seconds = {name: [] for name in sides}
  for _ in range(windows):
    for name, run in sides.items():
      start = time.perf_counter()
      taken = run(steps)
      seconds[name].append((time.perf_counter() - start) / taken)
  return seconds


def spread(windows: list[float]) -> str:
  """E.g. "seconds per step 0.1, windows 0.09 to 0.2"."""
  return (
    f"seconds per step {statistics.median(windows):.4g}, windows "
    f"{min(windows):.4g} to {max(windows):.4g}"
  )


def ratio(ours: list[float], theirs: list[float]) -> float:
  """How many times faster `ours` is, by the medians of both."""
  return statistics.median(theirs) / statistics.median(ours)
