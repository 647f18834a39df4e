"""Versions, devices and code of a run, in environment.json."""

from __future__ import annotations

import hashlib
import importlib.metadata
import pathlib
import platform
import subprocess
import sys
import uuid

import jax
from etils import epath

from paws_jax import errors
from paws_jax.runs import files

ENVIRONMENT = "environment.json"


def check_shared(workdir: epath.Path, start: str) -> None:
  """Checks that this process reads the directory that process 0 writes to.

  Args:
    workdir: the directory.
    start: result of `write_environment` on process 0.

  Raises:
    WorkdirError: the directory is another one here.
  """
  if (files.read_object(workdir / ENVIRONMENT) or {}).get("start") != start:
    raise errors.WorkdirError(
      f"--workdir={workdir} is not the directory that process 0 writes to: "
      "all processes need one that they share, on a network drive or in a "
      "bucket."
    )


def write_environment(workdir: epath.Path) -> str:
  """Writes environment.json: versions, devices, git hash, command.

  Returns:
    A text that is unique to this start.
  """
  start = uuid.uuid4().hex
  environment = {
    "python": platform.python_version(),
    "platform": platform.platform(),
    "packages": versions(),
    "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
    "processes": jax.process_count(),
    "git_hash": _git_hash(),
    "command": sys.argv,
    "code_hash": code_hash(),
    "start": start,
  }
  files.replace_object(workdir / ENVIRONMENT, environment)
  return start


def versions() -> dict[str, str | None]:
  """Returns the versions of the packages that results depend on."""
  packages = ("paws_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
  return {name: _version(name) for name in packages}


def code_hash() -> str:
  """Returns the SHA-256 of the package's source files, in hex."""
  root = pathlib.Path(__file__).parents[1]
  digest = hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
  return digest.hexdigest()


def version() -> str | None:
  """Returns the version of this package; None for a plain source tree."""
  return _version("paws_jax")


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _git_hash() -> str | None:
  """Returns the commit of the source tree, with "+" if files have changed."""
  root = pathlib.Path(__file__).resolve().parents[2]
  git = ["git", "-C", str(root)]
  try:
    # An installed package may be inside another repository.
    top = subprocess.run(
      [*git, "rev-parse", "--show-toplevel"],
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
    if pathlib.Path(top) != root:
      return None
    commit = subprocess.run(
      [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    changes = subprocess.run(
      [*git, "status", "--porcelain", "--untracked-files=no"],
      capture_output=True,
      text=True,
      check=True,
    ).stdout.strip()
  except (OSError, subprocess.CalledProcessError):
    return None
  return commit + ("+" if changes else "")
