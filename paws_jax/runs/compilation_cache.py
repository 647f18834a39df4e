"""Compiled programs kept on disk, so that a second start need not compile."""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform

import jax

# Its own variable, which JAX reads by itself.
VARIABLE = "JAX_COMPILATION_CACHE_DIR"
# What compiles in less time is not kept, unless JAX's own variable says else.
_SECONDS = 0.5
_SECONDS_VARIABLE = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
# Lines of /proc/cpuinfo, of x86 and of Arm.
_FEATURES = ("flags", "Features")


def enable(directory: str | None = None) -> str:
  """Has JAX keep what takes half a second to compile, and find it again.

  The environment variable JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS asks for
  other seconds.

  A program is found by its text, the compiler's version and options and the
  kind of device, so a stale one cannot be taken.

  Args:
    directory: where; "": keep nothing; None: what the environment variable
      JAX_COMPILATION_CACHE_DIR says, or `default_directory()`.

  Returns:
    The directory, "" when nothing is kept: also where none can be made.
  """
  if directory is None:
    directory = os.environ.get(VARIABLE)
  if directory is None:
    directory = str(default_directory())
  if directory and "://" not in directory:
    path = pathlib.Path(directory).expanduser()
    try:
      path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      print(f"compiled programs are not kept: {error}")
      directory = ""
    else:
      directory = str(path)
  jax.config.update("jax_compilation_cache_dir", directory or None)
  if _SECONDS_VARIABLE not in os.environ:
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _SECONDS)
  return directory


def default_directory() -> pathlib.Path:
  """Below the user's cache directory, one for each kind of processor.

  Code for a CPU may use instructions that another one lacks, and home
  directories are shared.
  """
  home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
  return pathlib.Path(home) / "paws_jax" / "compiled" / _processor()


def _processor() -> str:
  """A short name of what this machine's processor can do."""
  try:
    text = pathlib.Path("/proc/cpuinfo").read_text()
  except OSError:
    text = platform.processor()
  features = sorted(
    {line for line in text.splitlines() if line.startswith(_FEATURES)}
  )
  digest = hashlib.sha256("\n".join(features or [text]).encode()).hexdigest()
  return f"{platform.machine()}-{digest[:8]}"
