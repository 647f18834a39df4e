"""Saves and restores train states, on any number of devices."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax

from paws_jax.runs import checkpoint
from paws_jax.runs import checkpoint_tree
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib


def save(
  checkpointer: checkpoint.Checkpointer,
  trainer: state_lib.Trainer,
  step: int,
  state: state_lib.TrainState,
  meta: Mapping[str, Any],
) -> None:
  """Starts writing a state; tables lose the padding of this run's devices.

  Raises:
    errors.CheckpointError: see `Checkpointer.save`.
  """
  shapes = step_lib.extra_shapes(trainer, state)
  extra = state_lib.logical_extra(trainer, state.extra, shapes)
  checkpointer.save(step, state_lib.to_stored(state), meta, extra=extra)


def restore_latest(
  checkpointer: checkpoint.Checkpointer,
  trainer: state_lib.Trainer,
  like: state_lib.TrainState,
  *,
  reads: Callable[[state_lib.TrainState], Any] | None = None,
) -> tuple[int, state_lib.TrainState, dict[str, Any]] | None:
  """Restores the newest checkpoint that is complete and undamaged.

  Args:
    checkpointer: of the run.
    trainer: mesh and method, which pad tables for the devices at hand.
    like: a state without `extra`, or its shapes.
    reads: restores only the arrays that this function of the state uses; the
      others come back as None. None: all of them, and `extra` with them.

  Returns:
    (step, state, meta); None when there is no checkpoint.

  Raises:
    errors.CheckpointError: see `Checkpointer.restore_latest`.
  """
  replicated = state_lib.replicated_shapes(trainer, like)
  shapes = step_lib.extra_shapes(trainer, replicated)
  extra = state_lib.logical_like(trainer, shapes)
  only = None
  if reads is not None:
    names = _names_read(reads, replicated.replace(extra=shapes))
    only = names.__contains__
  restored = checkpointer.restore_latest(
    state_lib.to_stored(replicated), extra=extra, only=only
  )
  if restored is None:
    return None
  step, items, meta = restored
  stored, extra = items if jax.tree.leaves(shapes) else (items, extra)
  if reads is None:
    pad = jax.jit(
      lambda extra: state_lib.pad_extra(trainer, extra),
      out_shardings=state_lib.extra_shardings(trainer),
    )
    extra = pad(extra)
  return step, state_lib.from_stored(stored, extra), meta


def _names_read(
  function: Callable[[state_lib.TrainState], Any],
  state: state_lib.TrainState,
) -> set[str]:
  """Returns the stored names of the arrays of a state that a function uses."""
  closed = jax.make_jaxpr(function)(state)
  used = {id(variable) for variable in closed.jaxpr.outvars}
  for equation in closed.jaxpr.eqns:
    used |= {id(variable) for variable in equation.invars}
  # `to_stored` keeps the order of the leaves; `extra` comes last.
  stored = [
    checkpoint_tree.name_of(path)
    for path, _ in jax.tree.leaves_with_path(state_lib.to_stored(state))
  ]
  extra = [
    f"extra/{checkpoint_tree.name_of(path)}"
    for path, _ in jax.tree.leaves_with_path(state.extra)
  ]
  names = zip([*stored, *extra], closed.jaxpr.invars, strict=True)
  return {name for name, variable in names if id(variable) in used}
