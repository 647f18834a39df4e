"""What a recipe will need, before it runs: memory, and a learning rate."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax.data import host_memory
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import state as state_lib
from paws_jax.training import step as step_lib

if TYPE_CHECKING:
  from paws_jax.plan import abstract_step

# Batches that the host pipeline has ready beside those in use.
PREFETCHED = 2
_KEPT = ("conv_general_dilated", "dot_general")


@dataclasses.dataclass(frozen=True)
class Memory:
  """Bytes on each device while a step runs.

  Attributes:
    state: parameters, batch statistics and optimizer state.
    gradients: and the updates made of them.
    images: undistorted ones, those that wait for their step included; of those
      in the host's memory the chunk that is cut and the next.
    views: the crops cut out of them.
    activations: what the forward pass keeps for the backward pass.
  """

  state: int
  gradients: int
  images: int
  views: int
  activations: int

  @property
  def total(self) -> int:
    """All of it."""
    return sum(dataclasses.astuple(self))


def memory(
  experiment: experiment_lib.Experiment | abstract_step.Step,
) -> Memory:
  """Estimates the memory that a train step takes; compiles and runs nothing.

  State, images and views are counted. Activations are estimated: a convolution
  or matrix product (they are found by tracing the loss as one device sees it)
  keeps its result for the normalization after it, and the normalization keeps
  its own for the next convolution: twice the results' bytes. With
  train.remat = "dots" they are kept once; with "all", or with
  train.chunks, the encoder is computed again, one batch of views or a chunk of
  it at a time, and the largest of them counts; views are those of a chunk.

  For ResNet-50 in bfloat16 that makes 45 MB for an image of 224 pixels, and
  211 MB for an unlabelled image with its share of the supports in the ImageNet
  recipe, where counting the bytes layer by layer gave 195. The program that XLA
  makes for a CPU keeps more: 1.4 to 1.8 times as much for a small residual
  network in float32.
  """
  trainer, mesh = experiment.trainer, experiment.trainer.mesh
  inputs = experiment.pipeline.input_shapes(experiment.train.steps_per_call)
  step = jax.ShapeDtypeStruct((), jnp.int32)
  batch = jax.eval_shape(experiment.pipeline.batch, inputs, step)
  state = jax.eval_shape(
    lambda: step_lib.add_extra(trainer, step_lib.init_state(trainer, batch))
  )
  views = jax.eval_shape(
    functools.partial(step_lib.make_views, trainer), batch, step
  )
  params = num_bytes(state.params)
  of_host = host_bytes(inputs) // experiment.train.steps_per_call
  if isinstance(experiment, experiment_lib.Experiment) and mesh_lib.on_cpu(
    mesh
  ):
    # Its devices have the same memory.
    of_host = 0
  share = -(-(num_bytes(batch) - of_host) // mesh.size)
  if experiment.dataset.in_memory:
    images = num_bytes(inputs) + share
  else:
    images = share * host_batches(experiment.train.steps_per_call)
    images += 2 * of_host // (mesh.size * experiment.train.chunks)
  loss = jax.make_jaxpr(functools.partial(step_lib.global_loss, trainer))(
    state.params, state.batch_stats, state.extra, views, step
  )
  return Memory(
    state=num_bytes(state.replace(extra={})) + extra_bytes(trainer, state),
    gradients=2 * params,
    images=images,
    views=-(-num_bytes(views) // (mesh.size * experiment.train.chunks)),
    activations=_activations(loss.jaxpr, experiment.train.remat),
  )


def extra_bytes(trainer: state_lib.Trainer, state: state_lib.TrainState) -> int:
  """Bytes on each device of what a method carries beside its parameters."""
  sizes = jax.tree.map(
    lambda sharding, tree: sum(
      math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(tree)
    ),
    state_lib.extra_shardings(trainer),
    state.extra,
  )
  return sum(jax.tree.leaves(sizes))


def host_bytes(inputs: Any) -> int:
  """Bytes of what stays in the host's memory, of shapes with shardings."""
  return num_bytes(
    [
      leaf
      for leaf in jax.tree.leaves(inputs)
      if leaf.sharding.memory_kind == host_memory.KIND
    ]
  )


def host_batches(steps_per_call: int) -> int:
  """Batches of the host pipeline that wait or are in use at once."""
  # Those of the call that runs and, as `loop.loop` keeps them until its
  # metrics are there, of the one before; of several, one is copied to be used.
  in_use = 2 * steps_per_call + (steps_per_call > 1)
  return in_use + PREFETCHED


def num_bytes(tree: Any) -> int:
  """Bytes of the arrays of a pytree, or of what has their shapes."""
  return sum(
    math.prod(leaf.shape) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _activations(jaxpr: Any, remat: str) -> int:
  """Bytes kept for the backward pass of what has been traced."""
  kept, at_once = 0, [0]
  for equation in jaxpr.eqns:
    inner = list(_inner(equation))
    if equation.primitive.name in _KEPT:
      kept += 2 * sum(num_bytes(out.aval) for out in equation.outvars)
    elif equation.primitive.name == "scan" and _rematerialized(inner):
      # Chunks, of which the results are kept.
      kept += sum(num_bytes(out.aval) for out in equation.outvars)
      at_once += [_activations(j, remat) for j in _rematerialized(inner)]
    elif "prevent_cse" in equation.params:
      # A call of jax.checkpoint.
      inside = sum(_activations(j, "none") for j in inner)
      kept += inside // 2 if remat == "dots" else 0
      at_once.append(inside if remat == "all" else 0)
    else:
      kept += sum(_activations(j, remat) for j in inner)
  return kept + max(at_once)


def _rematerialized(bodies: Sequence[Any]) -> list[Any]:
  """Programs in calls of jax.checkpoint that are all there is of a loop."""
  return [
    program
    for body in bodies
    for equation in body.eqns
    if "prevent_cse" in equation.params
    for program in _inner(equation)
  ]


def _inner(equation: Any) -> Iterator[Any]:
  """The programs that an operation calls."""
  for value in jax.tree.leaves(
    list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
  ):
    if hasattr(value, "eqns"):
      yield getattr(value, "jaxpr", value)


def device_memory(devices: Sequence[jax.Device]) -> int | None:
  """Bytes that each device has; None where it is unknown.

  The devices of a CPU share what the machine has, or what Linux grants the
  container that this process runs in.
  """
  if devices[0].platform == "cpu":
    names = ("SC_PAGE_SIZE", "SC_PHYS_PAGES")
    if any(name not in getattr(os, "sysconf_names", ()) for name in names):
      return None
    machine = math.prod(map(os.sysconf, names))
    return min([machine, *_group_limits()]) // len(devices)
  stats = devices[0].memory_stats() or {}
  return stats.get("bytes_limit")


def _group_limits(
  membership: str = "/proc/self/cgroup", root: str = "/sys/fs/cgroup"
) -> Iterator[int]:
  """Limits in bytes of the control groups (version 2) that hold this process.

  Args:
    membership: the file in which Linux names the group.
    root: where the groups are mounted.
  """
  try:
    lines = pathlib.Path(membership).read_text().splitlines()
  except OSError:
    return
  group = next((line[3:] for line in lines if line.startswith("0::")), "/")
  top = pathlib.PurePosixPath("/")
  place = top / group
  # A container may see its own group as the root.
  for folder in (place, *place.parents):
    limit = pathlib.Path(root, folder.relative_to(top), "memory.max")
    with contextlib.suppress(OSError, ValueError):
      # Or "max", which is none.
      yield int(limit.read_text())
