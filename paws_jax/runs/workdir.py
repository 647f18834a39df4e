"""The directory of a run: its recipe, its environment, its split."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import platform
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import upgrade
from paws_jax.distributed import lifecycle
from paws_jax.runs import files
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results

CHECKPOINTS = "checkpoints"
_LOCK = ".lock"


def storage_errors() -> tuple[type[Exception], ...]:
  """What a directory's file system may raise: a bucket's are TensorFlow's."""
  tensorflow = sys.modules.get("tensorflow")
  if tensorflow is None:
    return (OSError,)
  return (OSError, tensorflow.errors.OpError)


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
  """Keeps other processes on this machine from using a run's directory.

  The system lets go of the lock when the process ends, however it ends. Where
  the file system knows no locks there is none.

  Raises:
    WorkdirError: when another process has it.
  """
  if not isinstance(workdir, pathlib.Path):
    # Nor does a bucket.
    yield
    return
  descriptor = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      other = os.read(descriptor, 99).decode().strip()
      raise errors.WorkdirError(
        f"{workdir} is in use by {other or 'another process'}: let it end, "
        "stop it, or choose another --workdir."
      ) from None
    except OSError:
      pass
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    yield
  finally:
    os.close(descriptor)


def run_lock(workdir: epath.Path) -> contextlib.AbstractContextManager[None]:
  """`lock` for a run, of whose processes the first has it."""
  if lifecycle.is_main():
    return lock(workdir)
  return contextlib.nullcontext()


def prepare(
  path: str | os.PathLike[str],
  config: ml_collections.ConfigDict,
  split: Mapping[str, Any] | None = None,
) -> epath.Path:
  """Makes or re-opens a run's directory and writes the recipe into it.

  Args:
    path: the directory; made if it does not exist.
    config: the resolved recipe.
    split: what `write_split` will write, to be checked before anything is.

  Returns:
    Its absolute path.

  Raises:
    WorkdirError: when it cannot be written, or holds a run of another recipe.
      A run that has left neither checkpoint nor result does not count: one
      that did not fit into memory, say.
  """
  workdir = files.resolve(path)
  recipe = config_lib.resolve(config)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with lock(workdir):
      stored = recipe_lib.stored_recipe(workdir)
      if stored is not None and _holds_run(workdir):
        recipe_lib.check_same(stored, recipe, workdir)
      # A command that is refused must leave the recipe as it was.
      results.read_results(workdir)
      if split is not None:
        _check_split(workdir, split)
      text = files.to_json(upgrade.write(recipe))
      files.replace_text(workdir / recipe_lib.RECIPE, text)
  except storage_errors() as error:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    raise errors.WorkdirError(
      f"--workdir={workdir} cannot be written ({reason}): choose another "
      "directory."
    ) from None
  return workdir


def open_run(
  path: str | os.PathLike[str],
  config: ml_collections.ConfigDict,
  split: Mapping[str, Any],
) -> epath.Path:
  """Finds the run of a recipe, to look at what it has made; writes nothing.

  Args:
    path: its directory.
    config: the resolved recipe.
    split: the labelled images as they are now.

  Returns:
    The absolute path.

  Raises:
    WorkdirError: when the directory holds no run or that of another recipe, or
      the labelled images have changed.
  """
  workdir = recipe_lib.check_recipe(path, config)
  _check_split(workdir, split)
  return workdir


def write_split(workdir: epath.Path, split: Mapping[str, Any]) -> None:
  """Writes split.json, the labelled images and their hash.

  Raises:
    WorkdirError: when the run was started on other labelled images or data.
  """
  _check_split(workdir, split)
  files.replace_text(workdir / "split.json", files.to_json(split))


def _check_split(workdir: epath.Path, split: Mapping[str, Any]) -> None:
  """Refuses other labelled images than those the run was started with."""
  stored = files.read_object(workdir / "split.json")
  before, now = (stored or split).get("hash", "none"), split["hash"]
  if before != now and _holds_run(workdir):
    raise errors.WorkdirError(
      "the labelled images or the data have changed since the run in "
      f"{workdir} was started (hash {before[:12]}, now {now[:12]}): restore "
      "them or choose another --workdir."
    )


def _holds_run(workdir: epath.Path) -> bool:
  """Whether there is anything that another recipe would spoil."""
  names = [path.name for path in (workdir / CHECKPOINTS).glob("*")]
  complete = any(name.isdigit() for name in names)
  return complete or (workdir / results.RESULTS).exists()


# In a run's directory.
CLASSIFIER = "classifier"
FINETUNED = "finetuned"
