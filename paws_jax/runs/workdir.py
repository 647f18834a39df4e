"""The work directory of a run: opening, locking, labelled images."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import sys
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import json_text
from paws_jax.distributed import lifecycle
from paws_jax.runs import data_changes
from paws_jax.runs import files
from paws_jax.runs import full_disk
from paws_jax.runs import locks
from paws_jax.runs import newest_checkpoint
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results

# Directories and files in a work directory.
CHECKPOINTS = newest_checkpoint.CHECKPOINTS
CLASSIFIER = "classifier"
FINETUNED = "finetuned"
_LOCK = ".lock"
_SPLIT = "split.json"


def storage_errors() -> tuple[type[Exception], ...]:
  """Errors of a file system; those of a bucket are TensorFlow's."""
  tensorflow = sys.modules.get("tensorflow")
  if tensorflow is None:
    return (OSError,)
  return (OSError, tensorflow.errors.OpError)


@contextlib.contextmanager
def lock(workdir: epath.Path) -> Iterator[None]:
  """Prevents other processes on this machine from using a work directory.

  The system releases the lock when the process ends, however it ends. A file
  system without locks, and a bucket, are used without one.

  Raises:
    WorkdirError: another process has the lock.
  """
  if not isinstance(workdir, pathlib.Path):
    yield
    return
  descriptor = os.open(workdir / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
  try:
    try:
      locks.hold(descriptor, wait=False)
    except BlockingIOError:
      other = os.read(descriptor, 99).decode().strip()
      raise errors.WorkdirError(
        f"{workdir} is in use by {other or 'another process'}: wait for it, "
        "stop it, or choose another --workdir."
      ) from None
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} on {platform.node()}".encode())
    yield
  finally:
    os.close(descriptor)


def run_lock(workdir: epath.Path) -> contextlib.AbstractContextManager[None]:
  """Locks a work directory for a run, in process 0 only."""
  if lifecycle.is_main():
    if not locks.AVAILABLE:
      print(
        "this system has no file locks: use no other command on "
        f"--workdir={workdir} at the same time"
      )
    return lock(workdir)
  return contextlib.nullcontext()


def prepare(
  path: str | os.PathLike[str],
  recipe: config_lib.Recipe,
  split: Mapping[str, Any] | None = None,
  list_images: data_changes.ListImages | None = None,
  *,
  found: Mapping[str, Any] | None = None,
) -> epath.Path:
  """Creates or reopens a work directory and writes the recipe into it.

  Args:
    path: the directory; created if it does not exist.
    recipe: the resolved recipe.
    split: argument of a later `write_split`, checked before anything is
      written.
    list_images: lists the training images; None: they have no names.
    found: how the number of epochs was found, if by train.minutes; default: as
      for the run that the directory holds.

  Returns:
    The absolute path.

  Raises:
    WorkdirError: the directory cannot be written, or holds a run of another
      recipe. A run without checkpoint and result does not count, e.g. one that
      did not fit into memory.
  """
  workdir = files.resolve(path)
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with lock(workdir):
      stored = recipe_lib.stored_recipe(workdir)
      if stored is not None and newest_checkpoint.holds_run(workdir):
        recipe_lib.check_same(stored, recipe, workdir)
        found = found or recipe_lib.laid_out(workdir)
      # A command that is refused must leave the recipe as it was.
      results.read_results(workdir)
      if split is not None:
        _check_split(workdir, recipe, split, list_images)
      recipe_lib.write(workdir, recipe, found or {})
  except storage_errors() as error:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    remedy = "free space, or " if full_disk.reason(error) else ""
    raise errors.WorkdirError(
      f"--workdir={workdir} cannot be written ({reason}): {remedy}choose "
      "another directory."
    ) from None
  return workdir


def open_run(
  path: str | os.PathLike[str],
  recipe: config_lib.Recipe,
  split: Mapping[str, Any],
  list_images: data_changes.ListImages | None = None,
) -> epath.Path:
  """Opens the work directory of a finished run, without writing.

  Args:
    path: the directory.
    recipe: the resolved recipe.
    split: the labelled images as they are now.
    list_images: lists the training images; None: they have no names.

  Returns:
    The absolute path.

  Raises:
    WorkdirError: the directory holds no run or one of another recipe, or the
      labelled images have changed.
  """
  workdir = recipe_lib.check_recipe(path, recipe)
  _check_split(workdir, recipe, split, list_images)
  return workdir


def check_not_own(directory: str | os.PathLike[str], given: str) -> None:
  """Refuses the place of a run's own classifier, which its tasks replace.

  Args:
    directory: where somebody wants to save another classifier.
    given: what names it, for the message: "--output=DIR".

  Raises:
    ClassifierError: it is that of a run.
  """
  path = files.resolve(directory)
  if isinstance(path, pathlib.Path):
    path = path.resolve()
  if path.name not in (CLASSIFIER, FINETUNED):
    return
  # Others, too, call a file config.json.
  stored = files.read_object(path.parent / recipe_lib.RECIPE)
  if stored is not None and {"method", "optim"} <= stored.keys():
    raise errors.ClassifierError(
      f"{given} is the place of the run's own classifier: choose another "
      "directory for this one."
    )


def check_writable(workdir: epath.Path, *others: str) -> None:
  """Refuses a run whose results cannot be written, before they are computed.

  Args:
    workdir: of the run.
    *others: files in it that are written, too.

  Raises:
    WorkdirError: the directory cannot be written.
  """
  for name in (results.RESULTS, *others):
    files.check_writable(
      workdir / name,
      "results are written there: give yourself the right to, or copy the run",
    )


def write_split(
  workdir: epath.Path,
  split: Mapping[str, Any],
  list_images: data_changes.ListImages | None = None,
) -> None:
  """Writes the labelled images with their hash, and the names of all.

  Args:
    workdir: of a run that `prepare` has checked.
    split: for split.json.
    list_images: lists the training images; None: they have no names.

  Raises:
    WorkdirError: the run was started with other labelled images or data.
  """
  _check_split(workdir, None, split, list_images)
  stored = files.read_object(workdir / _SPLIT)
  files.replace_object(
    workdir / _SPLIT, split, edited=_is_edited(stored, split)
  )
  there = (workdir / data_changes.IMAGES).exists()
  if list_images is not None and not (there and stored == split):
    data_changes.write(workdir, list_images())


def _is_edited(
  stored: Mapping[str, Any] | None, split: Mapping[str, Any]
) -> bool:
  """Whether a split has the hash of another one, and not its content."""
  if stored is None or stored.get("hash") != split["hash"]:
    return False
  split = json_text.parse(files.to_json(split))
  return any(stored.get(name, value) != value for name, value in split.items())


def _check_split(
  workdir: epath.Path,
  recipe: config_lib.Recipe | None,
  split: Mapping[str, Any],
  list_images: data_changes.ListImages | None,
) -> None:
  """Refuses labelled images that differ from those of the run."""
  stored = files.read_object(workdir / _SPLIT)
  before, now = (stored or split).get("hash", "none"), split["hash"]
  if not isinstance(before, str):
    raise errors.WorkdirError(
      f"{workdir / _SPLIT} is damaged (its hash is {str(before)[:40]}): move "
      "it away."
    )
  if before == now or stored is None:
    return
  if newest_checkpoint.holds_run(workdir):
    changes = data_changes.describe(
      stored,
      split,
      data_changes.read(workdir),
      None if list_images is None else list_images(),
    )
    raise errors.WorkdirError(
      "the labelled images or the data have changed since the run in "
      f"{workdir} was started (hash {before[:12]}, now {now[:12]})"
      + "".join(f"\n  {line}" for line in changes)
      + "\nRestore them or choose another --workdir. "
      + recipe_lib.how_to_continue(workdir, recipe)
    )
