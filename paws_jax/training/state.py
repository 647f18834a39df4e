"""The state of training, and the constant parts of a train step."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding

from paws_jax.methods import base
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import views as views_lib

# In place of the axis of an array that is spread over the devices.
_NONE = -1


class TrainState(flax.struct.PyTreeNode):
  """The state that training carries between steps; a pytree of arrays."""

  # int32 scalar: steps taken.
  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  # bool scalar; once False, steps leave the state as it is.
  finite: jax.Array
  # Other state of a method: averages, queues, tables; {} for most.
  extra: Any = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class Stored:
  """The tree of a state in checkpoints, where `extra` is a separate item.

  The names are those of version 0.1, whose checkpoints are read.
  """

  step: Any
  params: Any
  model_state: Any
  opt_state: Any
  finite: Any


@dataclasses.dataclass(frozen=True)
class Trainer:
  """The constant parts of a train step, next to state and data."""

  method: base.Method
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  views: views_lib.StepViews
  num_support_views: int
  seed: int
  mesh: jax.sharding.Mesh
  facts: base.Facts = dataclasses.field(default_factory=base.Facts)
  # Of (gradients, params): more scalar metrics, see `optim.observer`.
  observe: Callable[[Any, Any], dict[str, jax.Array]] | None = None

  @functools.cached_property
  def place(self) -> Callable[[TrainState], TrainState]:
    """Puts a state that a method has made on the devices, padded and copied.

    The next step gives the memory of each array to its result: no two may share
    any. One function for all epochs, so that it is compiled once.
    """

    def copy(state: TrainState) -> TrainState:
      state = state.replace(extra=pad_extra(self, state.extra))
      return jax.tree.map(jnp.copy, state)

    return jax.jit(copy, out_shardings=shardings(self))


def to_stored(state: TrainState) -> Stored:
  """Converts a state, or its shapes, to the tree that checkpoints hold."""
  stats = state.batch_stats
  return Stored(
    step=state.step,
    params=state.params,
    model_state={"batch_stats": stats} if stats else {},
    opt_state=state.opt_state,
    finite=state.finite,
  )


def from_stored(stored: Stored, extra: Any) -> TrainState:
  """Converts the tree in checkpoints to a state; undoes `to_stored`."""
  return TrainState(
    step=stored.step,
    params=stored.params,
    batch_stats=stored.model_state.get("batch_stats", {}),
    opt_state=stored.opt_state,
    finite=stored.finite,
    extra=extra,
  )


def shardings(trainer: Trainer) -> TrainState:
  """Returns the shardings of a state, as a prefix of its tree.

  All arrays but those of `extra` are replicated.
  """
  replicated: Any = mesh_lib.replicated(trainer.mesh)
  return TrainState(
    step=replicated,
    params=replicated,
    batch_stats=replicated,
    opt_state=replicated,
    finite=replicated,
    extra=extra_shardings(trainer),
  )


def replicated_shapes(trainer: Trainer, state: TrainState) -> TrainState:
  """Returns ShapeDtypeStructs with shardings of a state without `extra`."""
  sharding = mesh_lib.replicated(trainer.mesh)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    state.replace(extra={}),
  )


def extra_shardings(trainer: Trainer) -> Any:
  """Returns the shardings of `extra`, as a prefix of its tree."""
  return jax.tree.map(
    lambda spec: NamedSharding(trainer.mesh, spec), trainer.method.extra_specs
  )


def pad_extra(trainer: Trainer, extra: Any) -> Any:
  """Pads tables of logical length with zeros to a multiple of the devices.

  Args:
    trainer: mesh, and the method whose `extra_specs` name the tables.
    extra: as `Method.init_extra` returns it; arrays or tracers.
  """
  multiple = trainer.mesh.size

  def pad(leaf: jax.Array, axis: int) -> jax.Array:
    missing = 0 if axis == _NONE else -leaf.shape[axis] % multiple
    if not missing:
      return leaf
    return jnp.pad(
      leaf, [(0, missing if i == axis else 0) for i in range(leaf.ndim)]
    )

  return jax.tree.map(pad, extra, _spread_axes(trainer, extra))


def logical_extra(trainer: Trainer, extra: Any, shapes: Any) -> Any:
  """Removes the padding, so that any number of devices can restore tables.

  Args:
    trainer: as for `pad_extra`.
    extra: of a state.
    shapes: ShapeDtypeStructs of the result of `Method.init_extra`.

  Returns:
    Arrays of these shapes. Those that had padding are on the host; in a run of
    several processes, replicated on the devices.
  """

  def cut(leaf: jax.Array, shape: jax.ShapeDtypeStruct) -> Any:
    if leaf.shape == shape.shape:
      return leaf
    if leaf.is_fully_addressable:
      return _first(np.asarray(leaf), shape.shape)
    return _first_on_devices(trainer.mesh, shape.shape)(leaf)

  return jax.tree.map(cut, extra, shapes)


def _first(table: Any, shape: tuple[int, ...]) -> Any:
  return table[tuple(slice(size) for size in shape)]


@functools.cache
def _first_on_devices(
  mesh: jax.sharding.Mesh, shape: tuple[int, ...]
) -> Callable[[jax.Array], jax.Array]:
  """Compiles a cut once for all checkpoints of a run."""
  return jax.jit(
    lambda table: _first(table, shape), out_shardings=mesh_lib.replicated(mesh)
  )


def logical_like(trainer: Trainer, shapes: Any) -> Any:
  """Returns ShapeDtypeStructs with shardings of a stored `extra`."""
  size = trainer.mesh.size

  def like(leaf: jax.ShapeDtypeStruct, axis: int) -> jax.ShapeDtypeStruct:
    spec = mesh_lib.REPLICATED
    if axis != _NONE and leaf.shape[axis] % size == 0:
      spec = mesh_lib.spread(axis)
    return jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=NamedSharding(trainer.mesh, spec)
    )

  return jax.tree.map(like, shapes, _spread_axes(trainer, shapes))


def _spread_axes(trainer: Trainer, extra: Any) -> Any:
  """For every leaf of `extra`, the axis that is spread over the devices.

  Returns:
    A tree of integers, -1 where a leaf is replicated.

  Raises:
    TypeError: naming a leaf without the axis that `extra_specs` spreads.
  """

  def axis_of(spec: Any, tree: Any) -> Any:
    named = [axis for axis, name in enumerate(spec) if name is not None]
    axis = named[0] if named else _NONE
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
      if axis >= len(leaf.shape):
        kind = "a scalar" if not leaf.shape else "an axis that is not there"
        raise TypeError(
          f"{type(trainer.method).__name__}.extra_specs spreads {kind} of "
          f"`extra` over the devices, below {jax.tree_util.keystr(path)!r}: "
          "give scalars mesh.REPLICATED."
        )
    return jax.tree.map(lambda _: axis, tree)

  return jax.tree.map(axis_of, trainer.method.extra_specs, extra)
