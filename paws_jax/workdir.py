"""The directory of a run: its recipe, its environment, its split."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import uuid
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
from etils import epath

from paws_jax import config as config_lib
from paws_jax import distributed
from paws_jax import metrics

RECIPE = "config.json"
CHECKPOINTS = "checkpoints"
_ENVIRONMENT = "environment.json"
_LOCK = ".lock"

# What may change between two commands on one workdir. `train.epochs` may grow:
# from the step where the run goes on, the learning rate follows the schedule of
# the longer run.
_FREE = (
  "log.",
  "eval.",
  "checkpoint.",
  "finetune.",
  # So that a run that a bad image has stopped can go on without it.
  "data.on_bad_image",
  "data.max_pixels",
  "data.support_cache_mb",
)
_EPOCHS = "train.epochs"


class WorkdirError(ValueError):
  """The directory cannot be used for this run."""


def check_shared(workdir: epath.Path, start: str) -> None:
  """Makes sure that this process sees what process 0 has written.

  Args:
    workdir: the directory.
    start: what `write_environment` has returned there.

  Raises:
    WorkdirError: when the directory is another one here.
  """
  if (_read(workdir / _ENVIRONMENT) or {}).get("start") != start:
    raise WorkdirError(
      f"--workdir={workdir} is not the directory that process 0 writes to: "
      "all processes need one that they share, on a network drive or in a "
      "bucket."
    )


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
      raise WorkdirError(
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
  if distributed.is_main():
    return lock(workdir)
  return contextlib.nullcontext()


def resolve(path: str | os.PathLike[str]) -> epath.Path:
  """The absolute path of a directory as a user writes it, or "gs://..."."""
  if "://" in os.fspath(path):
    return epath.Path(path)
  return pathlib.Path(path).expanduser().absolute()


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
  workdir = resolve(path)
  recipe = json.loads(config.to_json())
  try:
    workdir.mkdir(parents=True, exist_ok=True)
    with lock(workdir):
      stored = stored_recipe(workdir)
      if stored is not None and _holds_run(workdir):
        _check_same(stored, recipe, workdir)
      # A command that is refused must leave the recipe as it was.
      metrics.read_results(workdir)
      if split is not None:
        _check_split(workdir, split)
      metrics.replace_text(workdir / RECIPE, _json(recipe))
  except storage_errors() as error:
    reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
    raise WorkdirError(
      f"--workdir={workdir} cannot be written ({reason}): choose another "
      "directory."
    ) from None
  return workdir


def recipe(path: str | os.PathLike[str]) -> ml_collections.ConfigDict:
  """The recipe of the run in a directory; locked.

  Fields that are newer than the run have their defaults.

  Raises:
    WorkdirError: when there is no run, or its recipe has unknown fields.
  """
  workdir = resolve(path)
  stored = stored_recipe(workdir)
  if stored is None:
    raise WorkdirError(
      f"--workdir={workdir} holds no run: there is no {RECIPE} in it."
    )
  config = config_lib.base().lock()
  try:
    config.update_from_flattened_dict(
      {name: _tupled(value) for name, value in _flatten(stored).items()}
    )
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise WorkdirError(
      f"{workdir / RECIPE} has another version's fields: "
      f"{str(error).splitlines()[0]}. Give the recipe with --config."
    ) from None
  return config


def stored_recipe(workdir: epath.Path) -> dict[str, Any] | None:
  """The recipe in a directory as its run has written it; None: there is none.

  Raises:
    WorkdirError: when it is damaged.
  """
  return _read(workdir / RECIPE)


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
  workdir = check_recipe(path, config)
  _check_split(workdir, split)
  return workdir


def check_recipe(
  path: str | os.PathLike[str], config: ml_collections.ConfigDict
) -> epath.Path:
  """As `open_run`, for those who do not look at the data.

  Args:
    path: a run's directory.
    config: the resolved recipe.

  Returns:
    The absolute path.

  Raises:
    WorkdirError: when the directory holds no run or that of another recipe.
  """
  workdir = resolve(path)
  stored = stored_recipe(workdir)
  if stored is None:
    raise WorkdirError(
      f"--workdir={workdir} holds no run: pre-train first, or name the "
      "directory of one."
    )
  _check_same(stored, json.loads(config.to_json()), workdir)
  return workdir


def write_environment(workdir: epath.Path) -> str:
  """Writes environment.json: versions, devices, git hash, command.

  Returns:
    A text that no other start has.
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
  metrics.replace_text(workdir / _ENVIRONMENT, _json(environment))
  return start


def write_split(workdir: epath.Path, split: Mapping[str, Any]) -> None:
  """Writes split.json, the labelled images and their hash.

  Raises:
    WorkdirError: when the run was started on other labelled images or data.
  """
  _check_split(workdir, split)
  metrics.replace_text(workdir / "split.json", _json(split))


def _check_split(workdir: epath.Path, split: Mapping[str, Any]) -> None:
  """Refuses other labelled images than those the run was started with."""
  stored = _read(workdir / "split.json")
  before, now = (stored or split).get("hash", "none"), split["hash"]
  if before != now and _holds_run(workdir):
    raise WorkdirError(
      "the labelled images or the data have changed since the run in "
      f"{workdir} was started (hash {before[:12]}, now {now[:12]}): restore "
      "them or choose another --workdir."
    )


def _holds_run(workdir: epath.Path) -> bool:
  """Whether there is anything that another recipe would spoil."""
  names = [path.name for path in (workdir / CHECKPOINTS).glob("*")]
  complete = any(name.isdigit() for name in names)
  return complete or (workdir / metrics.RESULTS).exists()


def _check_same(
  stored: Mapping[str, Any], recipe: Mapping[str, Any], workdir: epath.Path
) -> None:
  differing = [
    f"{name}: {before} there, {now} now"
    for name, (before, now) in differences(stored, recipe).items()
    if not (name == _EPOCHS and now > before)
  ]
  if differing:
    raise WorkdirError(
      f"{workdir} holds a run of another recipe:\n  "
      + "\n  ".join(differing)
      + "\nChoose another --workdir, or give the recipe it was started with "
      "(log, eval and checkpoint intervals may change, train.epochs may grow)."
    )


def differences(
  stored: Mapping[str, Any], recipe: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Fields in which two recipes differ, but for those that change no training.

  Args:
    stored: of an earlier run, by section or by dotted name. Fields that are
      newer than the run had no effect on it: their defaults.
    recipe: as it is now, likewise.

  Returns:
    {dotted name: (its value in `stored`, in `recipe`)}, by name; a value that
    one of them has not is "(absent)".
  """
  defaults = json.loads(config_lib.base().to_json())
  old, new = _flatten(defaults) | _flatten(stored), _flatten(recipe)
  absent = "(absent)"
  pairs = {
    name: (old.get(name, absent), new.get(name, absent))
    for name in sorted(old.keys() | new.keys())
    if changes_training(name)
  }
  return {k: (a, b) for k, (a, b) in pairs.items() if a != b}


def changes_training(field: str) -> bool:
  """Whether a field, by dotted name, matters for how a recipe trains."""
  return not field.startswith(_FREE)


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= _flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def _tupled(value: Any) -> Any:
  """JSON has lists only."""
  return tuple(value) if isinstance(value, list) else value


def _read(path: epath.Path) -> dict[str, Any] | None:
  if not path.exists():
    return None
  try:
    value = json.loads(path.read_bytes())
  except ValueError as error:
    raise WorkdirError(f"{path} is not JSON ({error}): move it away.") from None
  if not isinstance(value, dict):
    raise WorkdirError(f"{path} is not a JSON object: move it away.")
  return value


def _json(value: Any) -> str:
  return json.dumps(value, indent=2) + "\n"


def versions() -> dict[str, str | None]:
  """Versions of the packages that results depend on."""
  packages = ("paws_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint")
  return {name: _version(name) for name in packages}


def code_hash() -> str:
  """Of the package's source files: a sha256, in hex."""
  root = pathlib.Path(__file__).parent
  digest = hashlib.sha256()
  for path in sorted(root.rglob("*.py")):
    digest.update(f"{path.relative_to(root)}\n".encode() + path.read_bytes())
  return digest.hexdigest()


def version() -> str | None:
  """Version of this package, None when it runs from a bare source tree."""
  return _version("paws_jax")


def _version(package: str) -> str | None:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def _git_hash() -> str | None:
  """Commit of the source tree, with "+" when it has been changed."""
  root = pathlib.Path(__file__).resolve().parents[1]
  git = ["git", "-C", str(root)]
  try:
    # An installed package may lie inside a repository of something else.
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
