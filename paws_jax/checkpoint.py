"""Checkpoints: orbax for the files, a digest per array against silent damage.

A checkpoint holds the state, and as JSON what else a resumed run must know. A
flipped bit in a file is otherwise restored without a word, so every array's
digest is stored beside it and compared on restoring; a checkpoint that fails
is passed over for the one before.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

_KEPT = 2


class CheckpointError(RuntimeError):
  """A checkpoint could not be written, or none could be read."""


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """Section `checkpoint` of a recipe; fields are explained in config.base."""

  every_steps: int
  keep_every_steps: int


@jax.jit
def digests(tree: Any) -> Any:
  """A 32-bit digest of the bits of every array.

  Each 32-bit word counts with an odd weight of its position, modulo 2^32: one
  changed bit always shows, and so do swapped words, but for about one case in
  four thousand million. It is computed on device, for sharded arrays too, and
  does not depend on the sharding.

  Args:
    tree: pytree of arrays of any numeric dtype.

  Returns:
    Pytree of uint32 scalars of the same structure.
  """
  return jax.tree.map(_digest, tree)


def _digest(array: jax.Array) -> jax.Array:
  if array.dtype == jnp.bool_:
    array = array.astype(jnp.uint8)
  bits = array.dtype.itemsize * 8
  words = jax.lax.bitcast_convert_type(
    array, jnp.uint32 if bits == 64 else jnp.dtype(f"uint{bits}")
  ).astype(jnp.uint32)
  # Linear position of each word; multiplied by a large odd number so that
  # neighbours differ in the high bits too, then made odd.
  position = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    axis_index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    position = position * jnp.uint32(size & 0xFFFFFFFF) + axis_index
  weights = (position * jnp.uint32(2654435761)) ^ (position >> 15)
  weights = weights * 2 + 1
  return jnp.sum(words * weights, dtype=jnp.uint32)


class Checkpointer:
  """Writes and restores the checkpoints of one run."""

  def __init__(
    self,
    directory: pathlib.Path | str,
    *,
    keep_every_steps: int = 0,
    warn: Callable[[str], None] = print,
  ):
    """Opens a directory of checkpoints, made if need be.

    Args:
      directory: where they lie; absolute.
      keep_every_steps: those at multiples of this stay for good; 0: only the
        last two.
      warn: called with a message when a damaged checkpoint is passed over.
    """
    policies = [managers.LatestN(_KEPT)]
    if keep_every_steps:
      policies.append(managers.EveryNSteps(keep_every_steps))
    self._warn = warn
    self._manager = ocp.CheckpointManager(
      directory,
      options=ocp.CheckpointManagerOptions(
        preservation_policy=managers.AnyPreservationPolicy(policies),
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
      ),
    )

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: Any, meta: Mapping[str, Any]) -> None:
    """Starts writing a checkpoint; returns when the state may be changed.

    Args:
      step: its number.
      state: pytree of arrays.
      meta: JSON-serialisable; stored and given back.

    Raises:
      CheckpointError: when this or the previous one could not be written.
    """
    if step in self.steps():
      return
    leaves = jax.tree.leaves_with_path(jax.device_get(digests(state)))
    named = {_name(path): int(leaf) for path, leaf in leaves}
    try:
      self._manager.wait_until_finished()
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardSave(state),
          meta=ocp.args.JsonSave({"digests": named, **meta}),
        ),
      )
    except (OSError, ValueError) as error:
      raise CheckpointError(f"checkpoint {step} failed: {error}") from error
    if not saved:
      raise CheckpointError(
        f"checkpoint {step} was refused: a later one exists "
        f"({self.steps()}) in {self._manager.directory}."
      )

  def wait(self) -> None:
    """Waits for the last write.

    Raises:
      CheckpointError: when it failed.
    """
    try:
      self._manager.wait_until_finished()
    except (OSError, ValueError) as error:
      raise CheckpointError(f"checkpoint failed: {error}") from error

  def restore_latest(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
    """Restores the newest checkpoint that is whole.

    Args:
      like: the state, or ShapeDtypeStructs with shardings, to restore into.

    Returns:
      (step, state, meta), or None when there is no checkpoint.

    Raises:
      CheckpointError: when checkpoints exist but none can be restored, or the
        newest is of another model.
    """
    steps = self.steps()
    if not steps:
      return None
    for step in reversed(steps):
      problem, state, meta = self._restore(step, like)
      if problem is None:
        return step, state, meta
      self._warn(
        f"checkpoint {step} is damaged ({problem}); trying the one before"
      )
    raise CheckpointError(
      f"none of the checkpoints {steps} in {self._manager.directory} could be "
      "restored: start again in another --workdir."
    )

  def close(self) -> None:
    """Waits for the last write and lets go of the directory."""
    self.wait()
    self._manager.close()

  def _restore(self, step: int, like: Any):
    """(what is wrong or None, state, meta) of one checkpoint."""
    try:
      meta = self._manager.restore(
        step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
      ).meta
    except Exception as error:
      return f"{type(error).__name__}: {_first_line(error)}", None, None
    stored = meta.pop("digests")
    self._check_fits(step, stored, like)
    try:
      state = self._manager.restore(
        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(like))
      ).state
    except Exception as error:
      return f"{type(error).__name__}: {_first_line(error)}", None, None
    found = jax.tree.leaves_with_path(jax.device_get(digests(state)))
    wrong = [_name(p) for p, d in found if stored[_name(p)] != int(d)]
    if wrong:
      return (
        f"{len(wrong)} arrays differ from their digests, first {wrong[0]}",
        None,
        None,
      )
    return None, state, meta

  def _check_fits(
    self, step: int, stored: Mapping[str, int], like: Any
  ) -> None:
    """Refuses a checkpoint of another model, naming what differs."""
    asked = {_name(path) for path, _ in jax.tree.leaves_with_path(like)}
    missing = sorted(asked - set(stored))
    unknown = sorted(set(stored) - asked)
    if missing or unknown:
      raise CheckpointError(
        f"checkpoint {step} in {self._manager.directory} is of another model: "
        f"it lacks {missing[:5] or 'nothing'} and has besides "
        f"{unknown[:5] or 'nothing'}. Use the recipe it was trained with or "
        "another --workdir."
      )
    metadata = self._manager.item_metadata(step).state
    shapes = {
      _name(path): (tuple(leaf.shape), jnp.dtype(leaf.dtype))
      for path, leaf in jax.tree.leaves_with_path(metadata)
    }
    for path, leaf in jax.tree.leaves_with_path(like):
      wanted = (tuple(leaf.shape), jnp.dtype(leaf.dtype))
      if shapes.get(_name(path), wanted) != wanted:
        raise CheckpointError(
          f"checkpoint {step} in {self._manager.directory} is of another "
          f"model: {_name(path)} has shape and dtype {shapes[_name(path)]}, "
          f"the recipe asks for {wanted}."
        )


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _first_line(error: Exception) -> str:
  lines = str(error).splitlines()
  return lines[0][:200] if lines else ""
