"""Rates of things that take turns, and what a number must be quoted with."""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import flax
import jax
from absl import logging
from jax.experimental.compilation_cache import compilation_cache

from paws_jax.parallel import cpu_devices

_Side = TypeVar("_Side")


def print_setting(**versions: str) -> None:
  """Prints devices and versions.

  Args:
    **versions: of more packages than Python, JAX and Flax.
  """
  logging.set_verbosity(logging.WARNING)
  device = jax.devices()[0]
  print(
    f"device: {jax.device_count()} x {device.device_kind} ({device.platform}), "
    f"{cpu_devices.num_cores()} CPU cores"
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
  first time has left on disk. Tracing and lowering, which every process does
  again, are in neither.
  """
  seconds = []
  traced = call.trace(*arguments)
  with tempfile.TemporaryDirectory() as directory:
    settings = {
      "jax_compilation_cache_dir": directory,
      # JAX leaves out what compiles soon, which would be compiled twice.
      "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    _configure(settings)
    try:
      for _ in range(2):
        jax.clear_caches()
        lowered = traced.lower()
        start = time.perf_counter()
        program = lowered.compile()
        seconds.append(time.perf_counter() - start)
    finally:
      _configure(before)
  cold, warm = seconds
  print(f"compile: {name} {cold:.1f} s, kept on disk {warm:.1f} s", flush=True)
  return program


def _configure(settings: Mapping[str, Any]) -> None:
  """Sets what JAX keeps on disk, and lets it look at that anew."""
  for name, value in settings.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


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


def efficiency(one: list[float], many: list[float], *, work: float) -> float:
  """Arithmetic per second on each of many devices, as a share of one alone's.

  Args:
    one: seconds per step on one device, one number a window.
    many: seconds per step on many, one number a window.
    work: FLOP of a step on each of the many / on the one. Below 1 where they
      divide something among them: seconds alone would then flatter.
  """
  return ratio(many, one) * work


def choose(seconds: Mapping[_Side, list[float]], *, default: _Side) -> _Side:
  """The fastest side by its median, of those that are surely faster.

  Args:
    seconds: per step of each side, one number a window.
    default: the side to keep to, unless all windows of another are faster than
      all of its own.
  """
  faster = [
    side for side in seconds if max(seconds[side]) < min(seconds[default])
  ]
  return min(
    faster, key=lambda side: statistics.median(seconds[side]), default=default
  )
