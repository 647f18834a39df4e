"""A cache of compiled programs on disk, for faster starts."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import shutil
from typing import Any

import jax

# A variable of JAX.
VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# Programs that compile in less time are not kept, unless a variable of JAX
# sets another limit.
_SECONDS = 0.5
_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# Room for a few programs.
_FREE_BYTES = 100 * 2**20
# Lines of /proc/cpuinfo on x86 and on Arm.
_FEATURES = ("flags", "Features")


def enable(directory: str | None = None) -> str:
  """Makes JAX keep programs that take at least half a second to compile.

  The environment variable JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS sets
  another limit. The key of a program is its text, the version and options of
  the compiler and the kind of device, so that a stale one is never used.

  Args:
    directory: where to keep them; "": nowhere; None: the directory in the
      environment variable JAX_COMPILATION_CACHE_DIR, or `default_directory()`.

  Returns:
    The directory; "" when nothing is kept, also because the directory cannot be
    created.
  """
  if directory is None:
    directory = os.environ.get(VARIABLE)
  if directory is None:
    directory = str(default_directory())
  if directory and "://" not in directory:
    path = pathlib.Path(os.path.expanduser(directory))
    try:
      path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      print(f"compiled programs are not kept: {error}")
      directory = ""
    else:
      directory = str(path)
  jax.config.update("jax_compilation_cache_dir", directory or None)
  # JAX adds the fields of its configuration at run time.
  config: Any = jax.config
  least = config.jax_persistent_cache_min_compile_time_secs
  if _SECONDS_VARIABLE not in os.environ:
    least = _SECONDS
  if directory and "://" not in directory and _is_full(directory):
    print(f"{directory} is on a full disk: no more compiled programs are kept")
    least = float("inf")
  jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
  return directory


def _is_full(directory: str) -> bool:
  """Whether a program may not fit; JAX would keep the half of it."""
  return shutil.disk_usage(directory).free < _FREE_BYTES


def default_directory() -> pathlib.Path:
  """Returns a directory in the user's cache, one per kind of processor.

  Programs for a CPU may use instructions that another one lacks, and home
  directories may be shared.
  """
  home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(home) / "paws_jax" / "compiled" / _processor()


def _processor() -> str:
  """Returns a short name for the instruction set of this machine."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:
    text = platform.processor()
  features = sorted(
    {line for line in text.splitlines() if line.startswith(_FEATURES)}
  )
  digest = hashlib.sha256("\n".join(features or [text]).encode()).hexdigest()
  return f"{platform.machine()}-{digest[:8]}"
