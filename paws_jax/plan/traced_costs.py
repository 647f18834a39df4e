"""What a step costs, counted in the traced program: where none is compiled."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import jax

from paws_jax.plan import abstract_step
from paws_jax.plan import hlo
from paws_jax.plan import memory as memory_lib

# Bytes that a step moves for each byte of activations that it keeps, and for
# each byte of state. Measured on the ImageNet recipe compiled for v5e:8x8,
# benchmarks/plan.md.
_TRAFFIC_OF_ACTIVATIONS = 7
_TRAFFIC_OF_STATE = 5
# The forward pass is a third of a step, and chunks compute it twice.
_TIMES_IN_CHUNKS = 4 / 3

_COLLECTIVES = {
  "psum": "all-reduce",
  "psum_invariant": "all-reduce",
  "all_gather": "all-gather",
  "all_gather_invariant": "all-gather",
  "reduce_scatter": "reduce-scatter",
  "all_to_all": "all-to-all",
  "ppermute": "collective-permute",
}


@dataclasses.dataclass(frozen=True)
class TracedCosts:
  """Of one step on one device; fields as the compiled program's.

  Attributes:
    memory: bytes by purpose.
    flops: of convolutions and matrix products.
    bytes_accessed: bytes to and from memory, very roughly.
    collectives: as traced; a compiler merges many.
    host_bytes_read: as of `host_bytes_read`.
  """

  memory: memory_lib.Memory
  flops: int
  bytes_accessed: float
  collectives: list[hlo.Collective]
  host_bytes_read: int = 0


def trace_costs(step: abstract_step.Step, traced: Any = None) -> TracedCosts:
  """Counts what a step needs; compiles and runs nothing.

  Args:
    step: the step.
    traced: what its `trace` gives; None: it is traced.
  """
  jaxpr = (traced or step.trace()).jaxpr.jaxpr
  memory = memory_lib.memory(step)
  # Those of a chunk, of which each is computed twice.
  activations: float = memory.activations * step.train.chunks
  if step.train.chunks > 1:
    activations *= _TIMES_IN_CHUNKS
  return TracedCosts(
    memory=memory,
    flops=flops(jaxpr),
    bytes_accessed=_TRAFFIC_OF_ACTIVATIONS * activations
    + _TRAFFIC_OF_STATE * memory.state,
    collectives=list(collectives(jaxpr, step.trainer.mesh.size)),
    host_bytes_read=host_bytes_read(jaxpr),
  )


def flops(jaxpr: Any) -> int:
  """FLOPs of the convolutions and matrix products of a program.

  A multiplication and an addition count as two. Inside `shard_map` those of
  one device count; places where a filter lies on padding count as others.
  """
  total = 0
  for equation in jaxpr.eqns:
    name = equation.primitive.name
    if name == "conv_general_dilated":
      total += _convolution(equation)
    elif name == "dot_general":
      total += _product(equation)
    else:
      total += _times(equation) * sum(
        flops(inner) for inner in _inner(equation)
      )
  return total


def _times(equation: Any) -> int:
  """How often the programs in an operation run."""
  if equation.primitive.name == "scan":
    return equation.params["length"]
  return 1


def host_bytes_read(jaxpr: Any) -> int:
  """Bytes that a program moves from the host's memory to a device."""
  total = 0
  for equation in jaxpr.eqns:
    if equation.primitive.name == "device_put":
      moved = [
        variable.aval
        for variable in equation.invars
        if variable.aval.memory_space == jax.memory.Space.Host
      ]
      total += memory_lib.num_bytes(moved)
    total += _times(equation) * sum(map(host_bytes_read, _inner(equation)))
  return total


def _convolution(equation: Any) -> int:
  params = equation.params
  kernel = equation.invars[1].aval.shape
  spec = params["dimension_numbers"].rhs_spec
  # Input channels of a group, and the places of the filter.
  products = math.prod(kernel[axis] for axis in spec[1:])
  out = math.prod(equation.outvars[0].aval.shape)
  # Of a dilated input most places are zeros, which nobody multiplies.
  return 2 * out * products // math.prod(params["lhs_dilation"])


def _product(equation: Any) -> int:
  (contracted, _), _ = equation.params["dimension_numbers"]
  left = equation.invars[0].aval.shape
  out = math.prod(equation.outvars[0].aval.shape)
  return 2 * out * math.prod(left[axis] for axis in contracted)


def collectives(jaxpr: Any, num_devices: int) -> Iterator[hlo.Collective]:
  """The collectives of a program, before a compiler merges any."""
  for equation in jaxpr.eqns:
    kind = _COLLECTIVES.get(equation.primitive.name) if num_devices > 1 else ""
    if kind:
      variables = equation.outvars if kind == "all-gather" else equation.invars
      by_dtype: dict[str, int] = {}
      for aval in (variable.aval for variable in variables):
        name = str(aval.dtype)
        size = math.prod(aval.shape) * aval.dtype.itemsize
        by_dtype[name] = by_dtype.get(name, 0) + size
      yield hlo.Collective(
        kind=kind,
        num_bytes=sum(by_dtype.values()),
        bytes_by_dtype=by_dtype,
        group_size=num_devices,
        source=str(equation.source_info.name_stack),
      )
    else:
      for inner in _inner(equation):
        found = list(collectives(inner, num_devices))
        yield from found * _times(equation)


def _inner(equation: Any) -> Iterator[Any]:
  """The programs that an operation calls."""
  for value in jax.tree.leaves(
    list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
  ):
    if hasattr(value, "eqns"):
      yield getattr(value, "jaxpr", value)
