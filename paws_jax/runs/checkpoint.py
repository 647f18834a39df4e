"""Checkpoints, written by orbax, with a digest of every array.

A checkpoint holds the state, and as JSON what else a resumed run must know.
orbax restores a flipped bit in a file without noticing, so the digest of every
array is stored and compared on restoring. A checkpoint that differs is set
aside, and the one before is used.
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
from paws_jax import json_text
from paws_jax.distributed import agree
from paws_jax.runs import checkpoint_errors
from paws_jax.runs import checkpoint_tree

_KEPT = 2


class _Manager(ocp.CheckpointManager):
  """A manager that leaves JAX's notice of pre-emption to the training loop.

  orbax's own would ask for it by the number of the step, and so move the number
  at which all processes have agreed to stop (`lifecycle.StopNotice`).
  """

  def reached_preemption(self, step: int) -> bool:
    del step
    return False


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
    """Opens a directory of checkpoints; makes it if it does not exist.

    Args:
      directory: an absolute path.
      keep_every_steps: checkpoints at multiples of this are kept; 0: only
        the last two.
      read_only: writes, moves and deletes nothing, as a run may be using the
        directory, which must exist.
      warn: called with a message when a damaged checkpoint is passed over.

    Raises:
      errors.CheckpointError: when the directory cannot be made.
    """
    checkpoint_errors.log_none_twice()
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
        f"{self._directory} cannot hold checkpoints: "
        f"{checkpoint_errors.first_line(error)}"
      ) from error

  def __enter__(self) -> Checkpointer:
    return self

  def __exit__(self, kind: type[BaseException] | None, *unused: Any) -> None:
    """Waits for the last write; raises its error unless there is another."""
    try:
      self.close()
    except errors.CheckpointError:
      if kind is None:
        raise

  def steps(self) -> list[int]:
    """Returns the steps of the complete checkpoints, ascending."""
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
      step: its number; larger than those of existing checkpoints.
      state: pytree of arrays.
      meta: JSON-serializable; stored and given back.
      extra: another pytree of arrays, an item of its own beside the state;
        nothing is written for a tree without arrays.

    Raises:
      errors.CheckpointError: when this or the previous one could not be
        written.
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
      # orbax would create it again, and nobody would notice.
      raise errors.CheckpointError(
        f"checkpoint {step} could not be written: {self._directory} has "
        "been deleted."
      )
    try:
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(**items, meta=ocp.args.JsonSave(sealed)),
      )
    except Exception as error:
      raise errors.CheckpointError(
        f"checkpoint {step} could not be written to {self._directory}: "
        f"{checkpoint_errors.of_writing(error)}"
      ) from error
    if not saved:
      raise errors.CheckpointError(
        f"checkpoint {step} was refused: a later one exists "
        f"({self.steps()}) in {self._directory}."
      )

  def wait(self) -> None:
    """Waits for the last write.

    Raises:
      errors.CheckpointError: when it failed.
    """
    # Whatever a file system throws at a background thread comes out here.
    try:
      self._manager.wait_until_finished()
    except Exception as error:
      raise errors.CheckpointError(
        f"a checkpoint could not be written to {self._directory}: "
        f"{checkpoint_errors.of_writing(error)}"
      ) from error

  def restore_latest(
    self,
    like: Any,
    *,
    extra: Any = None,
    only: Callable[[str], bool] | None = None,
  ) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores the newest checkpoint that is complete and undamaged.

    Damaged ones after it are renamed to `damaged-STEP`, unless this is
    read-only: the run continues before them and will write these steps again.
    Of several processes all call it.

    Args:
      like: the state, or ShapeDtypeStructs with shardings, to restore into.
      extra: the same for the item `extra`; not read if it has no arrays.
      only: selects the arrays to read by name ("params/trunk/...",
        "extra/..."); others come back as None. None: reads all.

    Returns:
      (step, state, meta), or None when there is no checkpoint; with `extra`,
      the second is (state, extra).

    Raises:
      errors.CheckpointError: when checkpoints exist but none can be
        restored, or one is of another model or may not be read.
      MemoryError, jax.errors.JaxRuntimeError: when memory does not suffice.
    """
    steps = self.steps()
    agree.agree(checkpoints=str(steps))
    damaged = []
    for step in reversed(steps):
      restored: Any = None
      trouble = ""
      try:
        restored = self._restore(step, {"state": like, "extra": extra}, only)
      except checkpoint_errors.DamagedError as error:
        trouble = str(error)
      # Damage that one process finds counts for all.
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
    """Waits for the last write and closes the directory.

    Raises:
      errors.CheckpointError: when the last write failed.
    """
    self.wait()
    self._manager.close()

  def _restore(
    self,
    step: int,
    like: Mapping[str, Any],
    only: Callable[[str], bool] | None,
  ) -> tuple[dict[str, Any], dict[str, Any]]:
    """Restores and checks the items of one checkpoint, and its meta."""
    # A damaged file can surface as any exception of orbax or TensorStore.
    try:
      sealed = self._manager.restore(
        step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
      ).meta
      text, sha256 = sealed["text"], sealed["sha256"]
    except Exception as error:
      raise checkpoint_errors.from_reading(
        self._directory, step, error
      ) from error
    if _sha256(text) != sha256:
      raise checkpoint_errors.DamagedError(
        "its description differs from its digest"
      )
    try:
      # Means of metrics that are only monitored need not be finite.
      stored = json_text.parse(text, non_finite=True)
      arrays = {"state": stored["arrays"], "extra": stored.get("extra", {})}
      version = stored["meta"].get("version")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
      raise checkpoint_errors.DamagedError(
        f"its description cannot be used ({error})"
      ) from None
    items = {}
    for item, tree in like.items():
      prefix = "" if item == "state" else f"{item}/"
      checkpoint_errors.check_fits(
        self._directory / str(step),
        arrays[item],
        tree,
        item=item,
        version=version,
      )
      items[item] = self._read(step, item, tree, prefix, only)
      found = checkpoint_tree.describe(items[item])
      wrong = [n for n in found if found[n] != arrays[item][n]]
      if wrong:
        raise checkpoint_errors.DamagedError(
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
    """Reads the arrays of an item that `only` selects."""
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
      raise checkpoint_errors.from_reading(
        self._directory, step, error
      ) from error

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
