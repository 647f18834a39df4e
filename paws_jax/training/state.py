"""What training carries from step to step, and what a step needs besides."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from paws_jax.methods import base
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import views as views_lib


@flax.struct.dataclass
class TrainState:
  """All that training carries from step to step; a pytree of arrays."""

  # int32 scalar: steps taken.
  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  # bool scalar; once False, steps leave the state as it is.
  finite: jax.Array
  # What a method keeps besides: averages, queues, tables; {} for most.
  extra: Any = flax.struct.field(default_factory=dict)


@flax.struct.dataclass
class Stored:
  """A state as checkpoints hold it; `extra` is an item of its own there.

  The names are those of version 0.1, whose checkpoints are read.
  """

  step: Any
  params: Any
  model_state: Any
  opt_state: Any
  finite: Any


@dataclasses.dataclass(frozen=True)
class Trainer:
  """What a step needs besides state and data; nothing here changes."""

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
  """Converts what `to_stored` has made back to a state."""
  return TrainState(
    step=stored.step,
    params=stored.params,
    batch_stats=stored.model_state.get("batch_stats", {}),
    opt_state=stored.opt_state,
    finite=stored.finite,
    extra=extra,
  )


def shardings(trainer: Trainer) -> TrainState:
  """Shardings of a state: a prefix of its tree, replicated but for `extra`."""
  replicated = mesh_lib.replicated(trainer.mesh)
  return TrainState(
    step=replicated,
    params=replicated,
    batch_stats=replicated,
    opt_state=replicated,
    finite=replicated,
    extra=extra_shardings(trainer),
  )


def replicated_shapes(trainer: Trainer, state: TrainState) -> TrainState:
  """ShapeDtypeStructs of a state without `extra`, with shardings."""
  sharding = mesh_lib.replicated(trainer.mesh)
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    state.replace(extra={}),
  )


def extra_shardings(trainer: Trainer) -> Any:
  """Shardings of `extra`, a prefix of its tree."""
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

  def pad(leaf: jax.Array, sharded: bool) -> jax.Array:
    missing = -leaf.shape[0] % multiple if sharded else 0
    if not missing:
      return leaf
    return jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))

  return jax.tree.map(pad, extra, _sharded(trainer, extra))


def logical_extra(trainer: Trainer, extra: Any, shapes: Any) -> Any:
  """Cuts the padding off: what a checkpoint holds for any number of devices.

  Args:
    trainer: as of `pad_extra`.
    extra: of a state.
    shapes: ShapeDtypeStructs of `Method.init_extra`.

  Returns:
    Arrays of these shapes; those that had padding are replicated.
  """
  replicated = mesh_lib.replicated(trainer.mesh)

  def cut(leaf: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
    if leaf.shape == shape.shape:
      return leaf
    rows = shape.shape[0]
    return jax.jit(lambda x: x[:rows], out_shardings=replicated)(leaf)

  return jax.tree.map(cut, extra, shapes)


def logical_like(trainer: Trainer, shapes: Any) -> Any:
  """Shapes with shardings to restore what `logical_extra` has stored into."""
  replicated = mesh_lib.replicated(trainer.mesh)
  spread = jax.tree.map(
    lambda leaf, sharded: sharded and leaf.shape[0] % trainer.mesh.size == 0,
    shapes,
    _sharded(trainer, shapes),
  )
  sharded = mesh_lib.batch_sharded(trainer.mesh)
  return jax.tree.map(
    lambda leaf, even: jax.ShapeDtypeStruct(
      leaf.shape, leaf.dtype, sharding=sharded if even else replicated
    ),
    shapes,
    spread,
  )


def _sharded(trainer: Trainer, extra: Any) -> Any:
  """For every leaf of `extra`, whether its rows are spread over the devices."""
  return jax.tree.map(
    lambda spec, tree: jax.tree.map(
      lambda _: spec != mesh_lib.REPLICATED, tree
    ),
    trainer.method.extra_specs,
    extra,
  )
