"""Checkpoints: orbax for the files, a digest per array against silent damage.

A checkpoint holds the state, and as JSON what else a resumed run must know. A
flipped bit in a file is otherwise restored without a word, so every array's
digest is stored beside it and compared on restoring; a checkpoint that fails
is set aside for the one before.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.distributed import agree
from paws_jax.runs import checkpoint_tree
from paws_jax.runs import provenance

_KEPT = 2

# In errors that a disk, a network or a server may get over.
_PASSING = (
  "Input/output error",
  "Stale file handle",
  "timed out",
  "DEADLINE_EXCEEDED",
  "UNAVAILABLE",
)

# Differing arrays named in an error; a whole model would fill the screen.
_LISTED = 8


class _Manager(ocp.CheckpointManager):
  """orbax's, but it leaves JAX's notice of pre-emption to the training loop.

  It would ask for it by the number of the step, and so move the number at which
  all have agreed to stop (`distributed.StopNotice`).
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


class _DamagedError(Exception):
  """What is wrong with one checkpoint; it stays inside this module."""


class Checkpointer:
  """Writes and restores the checkpoints of one run; a context manager."""

  def __init__(
    self,
    directory: epath.PathLike,
    *,
    keep_every_steps: int = 0,
    read_only: bool = False,
    warn: Callable[[str], None] = print,
  ):
    """Opens a directory of checkpoints, made if need be.

    Args:
      directory: where they lie; absolute.
      keep_every_steps: those at multiples of this stay for good; 0: only the
        last two.
      read_only: nothing is written, moved or cleaned up: a run may be using
        the directory, which must be there.
      warn: called with a message when a damaged checkpoint is passed over.

    Raises:
      CheckpointError: when the directory cannot be made.
    """
    policies = [managers.LatestN(_KEPT)]
    if keep_every_steps:
      policies.append(managers.EveryNSteps(keep_every_steps))
    self._warn = warn
    self._directory = epath.Path(directory)
    self._read_only = read_only
    try:
      # orbax would notice a file in the way only when it writes.
      if not read_only:
        self._directory.mkdir(parents=True, exist_ok=True)
      self._manager = _Manager(
        self._directory,
        options=ocp.CheckpointManagerOptions(
          preservation_policy=managers.AnyPreservationPolicy(policies),
          cleanup_tmp_directories=not read_only,
          enable_async_checkpointing=not read_only,
        ),
      )
    except OSError as error:
      raise errors.CheckpointError(
        f"{self._directory} cannot hold checkpoints: {_first_line(error)}"
      ) from error

  def __enter__(self) -> Checkpointer:
    return self

  def __exit__(self, kind: type[BaseException] | None, *unused: Any) -> None:
    """Waits for the last write; its failure does not hide another error."""
    try:
      self.close()
    except errors.CheckpointError:
      if kind is None:
        raise

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def save(
    self,
    step: int,
    state: Any,
    meta: Mapping[str, Any],
    *,
    extra: Any = None,
  ) -> None:
    """Starts writing a checkpoint; returns when the state may be changed.

    Args:
      step: its number; larger than those of the checkpoints there are.
      state: pytree of arrays.
      meta: JSON-serializable; stored and given back.
      extra: another pytree of arrays, an item of its own beside the state;
        nothing is written for a tree without arrays.

    Raises:
      CheckpointError: when this or the previous one could not be written.
    """
    items = {"state": ocp.args.StandardSave(state)}
    content = {"arrays": checkpoint_tree.describe(state), "meta": dict(meta)}
    if jax.tree.leaves(extra):
      items["extra"] = ocp.args.StandardSave(extra)
      content["extra"] = checkpoint_tree.describe(extra)
    text = json.dumps(content)
    sealed = {"text": text, "sha256": _sha256(text)}
    self.wait()
    # In a bucket a directory need not exist by itself.
    if "://" not in str(self._directory) and not self._directory.exists():
      # orbax would make it anew, and nobody would notice.
      raise errors.CheckpointError(
        f"checkpoint {step} could not be written: {self._directory} has "
        "vanished."
      )
    try:
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(sealed)),
      )
    except Exception as error:
      raise errors.CheckpointError(
        f"checkpoint {step} could not be written: {_first_line(error)}"
      ) from error
    if not saved:
      raise errors.CheckpointError(
        f"checkpoint {step} was refused: a later one exists "
        f"({self.steps()}) in {self._directory}."
      )

  def wait(self) -> None:
    """Waits for the last write.

    Raises:
      CheckpointError: when it failed.
    """
    # Whatever a file system throws at a background thread comes out here.
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise errors.CheckpointError(
        f"a checkpoint could not be written to {self._directory}: "
        f"{_first_line(error)}"
      ) from error

  def restore_latest(
    self,
    like: Any,
    *,
    extra: Any = None,
    only: Callable[[str], bool] | None = None,
  ) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores the newest checkpoint that is whole.

    Damaged ones after it are renamed to `damaged-STEP`, unless this is
    read-only: the run goes on before them, and will write these steps again. Of
    several processes all call it.

    Args:
      like: the state, or ShapeDtypeStructs with shardings, to restore into.
      extra: likewise for the item `extra`; without arrays: it is not read.
      only: whether to read an array, by its name ("params/trunk/...", or
        "extra/..."); None: all are read. Others come back as None.

    Returns:
      (step, state, meta), or None when there is no checkpoint; with `extra`,
      the second is (state, extra).

    Raises:
      CheckpointError: when checkpoints exist but none can be restored, or one
        is of another model or may not be read.
      MemoryError, jax.errors.JaxRuntimeError: when there is no room for one.
    """
    steps = self.steps()
    agree.agree(checkpoints=str(steps))
    damaged = []
    for step in reversed(steps):
      restored, trouble = None, ""
      try:
        restored = self._restore(step, {"state": like, "extra": extra}, only)
      except _DamagedError as error:
        trouble = str(error)
      # Damage shows in all processes: a digest is computed by all, and a file
      # that is cut off is so for each.
      trouble = next(filter(None, agree.gather(trouble)), "")
      if trouble:
        self._warn(f"checkpoint {step} is damaged: {trouble}")
        damaged.append(step)
        continue
      agree.on_main(functools.partial(self._set_aside, damaged))
      if damaged:
        self._manager.reload()
      items, meta = restored
      both = items["state"], items["extra"]
      return step, both if jax.tree.leaves(extra) else both[0], meta
    if not steps:
      return None
    raise errors.CheckpointError(
      f"none of the checkpoints {steps} in {self._directory} could be "
      "restored: start again in another --workdir."
    )

  def close(self) -> None:
    """Waits for the last write and lets go of the directory.

    Raises:
      CheckpointError: when the last write failed.
    """
    self.wait()
    self._manager.close()

  def _restore(
    self,
    step: int,
    like: Mapping[str, Any],
    only: Callable[[str], bool] | None,
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Restores the items of one checkpoint, checked, and its meta."""
    # A damaged file can surface as any exception of orbax or TensorStore.
    try:
      sealed = self._manager.restore(
        step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
      ).meta
      text, sha256 = sealed["text"], sealed["sha256"]
    except Exception as error:
      raise self._diagnosis(step, error) from error
    if _sha256(text) != sha256:
      raise _DamagedError("its description differs from its digest")
    stored = json.loads(text)
    arrays = {"state": stored["arrays"], "extra": stored.get("extra", {})}
    items = {}
    for item, tree in like.items():
      prefix = "" if item == "state" else f"{item}/"
      self._check_fits(step, item, arrays[item], tree, stored["meta"])
      items[item] = self._read(step, item, tree, prefix, only)
      found = checkpoint_tree.describe(items[item])
      wrong = [n for n in found if found[n] != arrays[item][n]]
      if wrong:
        raise _DamagedError(
          f"{len(wrong)} of {len(found)} arrays differ from their digests, "
          f"first {prefix}{wrong[0]}"
        )
    return items, stored["meta"]

  def _read(
    self,
    step: int,
    item: str,
    like: Any,
    prefix: str,
    only: Callable[[str], bool] | None,
  ) -> Any:
    """Reads the arrays of an item; of those that `only` refuses, none."""
    if not jax.tree.leaves(like):
      return like
    try:
      if only is None:
        restore = ocp.args.Composite(**{item: ocp.args.StandardRestore(like)})
        return self._manager.restore(step, args=restore)[item]
      return checkpoint_tree.read_part(
        self._directory / str(step) / item,
        like,
        lambda name: only(prefix + name),
      )
    except Exception as error:
      raise self._diagnosis(step, error) from error

  def _diagnosis(self, step: int, error: Exception) -> Exception:
    """What to raise when a checkpoint cannot be read.

    Too little memory or a missing permission says nothing about the files:
    they must not be set aside for it.
    """
    text = str(error)
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
      return error
    if isinstance(error, PermissionError) or "PERMISSION_DENIED" in text:
      return errors.CheckpointError(
        f"checkpoint {step} in {self._directory} may not be read: "
        f"{_first_line(error)}"
      )
    if any(word in text for word in _PASSING):
      return errors.CheckpointError(
        f"checkpoint {step} in {self._directory} cannot be read now: "
        f"{_first_line(error)}. Try again; if it stays so, move it away, and "
        "the run goes on from the one before."
      )
    return _DamagedError(_first_line(error))

  def _check_fits(
    self,
    step: int,
    item: str,
    stored: Mapping[str, Any],
    like: Any,
    meta: Mapping[str, Any],
  ) -> None:
    """Refuses a checkpoint of another model or version, naming what differs."""
    problems = checkpoint_tree.differences(stored, like)
    if problems:
      more = text_lib.first_few(problems, most=_LISTED, separator="\n  ")
      raise errors.CheckpointError(
        f"checkpoint {step} in {self._directory} is of another model; "
        f"{len(problems)} arrays differ:\n  {more}\n"
        "Use the recipe it was trained with, or another --workdir."
      )
    directory = self._directory / str(step) / item
    problems = checkpoint_tree.other_nodes(directory, like)
    if problems:
      raise errors.CheckpointError(
        f"checkpoint {step} in {self._directory} was written by paws_jax "
        f"{meta.get('version') or 'of an unknown version'}, whose state has "
        f"another tree than that of this version, {provenance.version()}: "
        f"{text_lib.first_few(problems, most=_LISTED)}. Nothing in it is "
        "damaged: continue the run with the version that started it, or use "
        "another --workdir."
      )

  def _set_aside(self, steps: Sequence[int]) -> None:
    if self._read_only:
      return
    for step in steps:
      target = self._directory / f"damaged-{step}"
      while target.exists():
        target = target.with_name(target.name + "-again")
      (self._directory / str(step)).rename(target)


def _sha256(text: str) -> str:
  return hashlib.sha256(text.encode()).hexdigest()


def _first_line(error: Exception) -> str:
  lines = str(error).splitlines()
  return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
