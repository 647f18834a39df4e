"""From a traced function of images to a graph of ONNX.

Operations on constants are computed now. Values keep the order of axes in which
they were made, so that convolutions in a row need no transposes between them.
A constant that is the same for every image has one row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import export
from jax.extend import core

from paws_jax import errors
from paws_jax.export.to_onnx import graph as graph_lib

BATCH = "b"
# Constants are computed for two images, which must agree.
_ROWS = 2


@dataclasses.dataclass(frozen=True)
class Value:
  """A value that depends on the images.

  Attributes:
    name: in the graph.
    shape: as JAX has it; the number of images is symbolic.
    order: stored axis i is axis order[i] of `shape`.
  """

  name: str
  shape: tuple[Any, ...]
  order: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Constant:
  """A value that does not depend on the images.

  Attributes:
    array: for two images, where `shape` has their number.
    shape: as JAX has it.
  """

  array: np.ndarray
  shape: tuple[Any, ...]


Operand = Value | Constant
Handler = Callable[["Converter", Any, list[Operand]], Operand]
# By the name of the primitive; filled by the modules beside this one.
HANDLERS: dict[str, Handler] = {}


def handles(*names: str) -> Callable[[Handler], Handler]:
  """Registers a handler of primitives."""

  def register(handler: Handler) -> Handler:
    HANDLERS.update(dict.fromkeys(names, handler))
    return handler

  return register


def convert(
  apply: Callable[[jax.Array], Mapping[str, jax.Array]],
  *,
  shape: tuple[int, ...],
  dtype: Any,
  input_name: str,
) -> graph_lib.Graph:
  """Traces a function and converts what it does.

  Args:
    apply: of images [b, *shape]; gives values by the names of the outputs.
    shape: of one image.
    dtype: of images.
    input_name: name of the images in the graph.

  Raises:
    errors.InputError: naming an operation that has no counterpart here.
  """
  (batch,) = export.symbolic_shape(BATCH)
  images = jax.ShapeDtypeStruct((batch, *shape), dtype)
  traced = jax.jit(apply).trace(images)
  converter = Converter(input_name)
  image = Value(input_name, images.shape, tuple(range(len(images.shape))))
  closed = traced.jaxpr
  results = converter.run(closed.jaxpr, closed.consts, [image])
  names = jax.tree.leaves(
    jax.tree_util.tree_map_with_path(
      lambda path, leaf: path[0].key, traced.out_info
    )
  )
  converter.graph.finish(
    {
      name: converter.stored(converter.dynamic(value))
      for name, value in zip(names, results, strict=True)
    }
  )
  return converter.graph


class Converter:
  """Adds the operations of jaxprs to a graph."""

  def __init__(self, input_name: str):
    """Makes a converter with an empty graph."""
    self.graph = graph_lib.Graph()
    self._input = input_name
    # What made a value: primitive and operands.
    self.made_by: dict[str, tuple[str, list[Operand]]] = {}

  def run(
    self, jaxpr: Any, consts: Sequence[Any], operands: Sequence[Operand]
  ) -> list[Operand]:
    """Converts a jaxpr; returns its results."""
    known = [Constant(np.asarray(c), np.shape(c)) for c in consts]
    values = dict(zip(jaxpr.constvars, known, strict=True))
    values |= dict(zip(jaxpr.invars, operands, strict=True))

    def read(atom: Any) -> Operand:
      if isinstance(atom, core.Literal):
        aval: Any = atom.aval
        return Constant(np.asarray(atom.val, aval.dtype), aval.shape)
      return values[atom]

    for eqn in jaxpr.eqns:
      results = self._convert(eqn, [read(atom) for atom in eqn.invars])
      values |= dict(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  def _convert(self, eqn: Any, operands: list[Operand]) -> list[Operand]:
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if inner is not None and eqn.primitive.name in _CALLS:
      consts = getattr(inner, "consts", ())
      return self.run(getattr(inner, "jaxpr", inner), consts, operands)
    if eqn.params.get("branches_platforms"):
      # `jax.lax.platform_dependent`: forms of one function, by platform. The
      # last is for all others.
      branch = eqn.params["branches"][-1]
      return self.run(branch.jaxpr, branch.consts, operands[1:])
    constants = [each for each in operands if isinstance(each, Constant)]
    if len(constants) == len(operands):
      return list(_computed(eqn, constants))
    name = eqn.primitive.name
    if name not in HANDLERS:
      raise unsupported(eqn, "it is not known to this exporter")
    result = HANDLERS[name](self, eqn, operands)
    if isinstance(result, Value):
      # Not of a transpose, whose result is the same value.
      self.made_by.setdefault(result.name, (name, operands))
    return [result]

  def stored(self, operand: Operand, order: Sequence[int] | None = None) -> str:
    """Name of an operand with its axes in an order; default that of JAX."""
    order = tuple(range(len(operand.shape)) if order is None else order)
    if isinstance(operand, Constant):
      array = one_row(operand)
      # Nothing of a scalar is to be moved.
      return self.graph.constant(array.transpose(order) if order else array)
    if order == operand.order:
      return operand.name
    permutation = [operand.order.index(axis) for axis in order]
    return self.graph.add("Transpose", [operand.name], perm=permutation)

  def integers(self, values: Sequence[int]) -> str:
    """Name of a constant vector of int64, as shapes and axes are given."""
    return self.graph.constant(np.asarray(values, np.int64))

  def dynamic(self, operand: Operand) -> Value:
    """An operand with a row for each image, where it has such an axis."""
    if isinstance(operand, Value):
      return operand
    name = self.stored(operand)
    if _batched(operand.shape):
      batch = self.graph.add("Shape", [self._input], start=0, end=1)
      sizes = [
        batch if export.is_symbolic_dim(size) else self.integers([size])
        for size in operand.shape
      ]
      target = self.graph.add("Concat", sizes, axis=0)
      name = self.graph.add("Expand", [name, target])
    return Value(name, operand.shape, tuple(range(len(operand.shape))))


# Their jaxprs take the place of the call.
_CALLS = {
  "closed_call",
  "core_call",
  "custom_jvp_call",
  "custom_vjp_call",
  "jit",
  "pjit",
  "remat",
  "checkpoint",
}


def unsupported(eqn: Any, reason: str) -> errors.InputError:
  """The error about an operation that cannot be exported."""
  return errors.InputError(
    f"--targets=onnx: the network has an operation ({eqn.primitive.name}) that "
    f"cannot be written as ONNX here: {reason}. Export stablehlo instead"
  )


def one_row(constant: Constant) -> np.ndarray:
  """The array with 1 in place of the number of images.

  Raises:
    errors.InputError: when images of a batch have different rows.
  """
  array = constant.array
  for axis, size in enumerate(constant.shape):
    if export.is_symbolic_dim(size):
      before = (slice(None),) * axis
      first, second = array[(*before, slice(1))], array[(*before, slice(1, 2))]
      # Without a stride both are the same numbers.
      if array.strides[axis] and not np.array_equal(first, second):
        raise errors.InputError(
          "--targets=onnx: the network numbers the images of a batch, which "
          "cannot be written as ONNX here. Export stablehlo instead"
        )
      array = first
  return array


# Without JAX, which would compile each of them.
_NUMPY: dict[str, Callable[..., Any]] = {
  "abs": np.abs,
  "add": np.add,
  "and": np.bitwise_and,
  # Of integers the result is cut to one.
  "div": np.divide,
  "eq": np.equal,
  "ge": np.greater_equal,
  "gt": np.greater,
  "le": np.less_equal,
  "lt": np.less,
  "max": np.maximum,
  "min": np.minimum,
  "mul": np.multiply,
  "ne": np.not_equal,
  "neg": np.negative,
  "rem": np.fmod,
  "rsqrt": lambda x: 1 / np.sqrt(x),
  "select_n": lambda which, no, yes: np.where(which, yes, no),
  "sign": np.sign,
  "sqrt": np.sqrt,
  "sub": np.subtract,
}


def _computed(eqn: Any, operands: list[Constant]) -> list[Constant]:
  """Computes an operation on constants, for two images."""
  name, shapes = eqn.primitive.name, [var.aval.shape for var in eqn.outvars]
  images_before = any(_batched(operand.shape) for operand in operands)
  of_all = images_before and not all(map(_batched, shapes))
  if of_all or name == "dim_as_value":
    raise unsupported(eqn, "it computes one value from all images of a batch")
  if name == "broadcast_in_dim":
    return [_broadcast(eqn, operands[0])]
  params = {key: _for_rows(eqn, value) for key, value in eqn.params.items()}
  arrays = [operand.array for operand in operands]
  if name in _NUMPY and len(arrays) <= 3:
    found = _NUMPY[name](*arrays)
  elif name == "convert_element_type":
    found = arrays[0].astype(params["new_dtype"])
  elif name == "reshape":
    found = arrays[0].reshape(params["new_sizes"])
  elif name == "transpose":
    found = arrays[0].transpose(params["permutation"])
  else:
    found = eqn.primitive.bind(*arrays, **params)
  found = found if eqn.primitive.multiple_results else [found]
  return [
    Constant(np.asarray(array, var.aval.dtype), var.aval.shape)
    for array, var in zip(found, eqn.outvars, strict=True)
  ]


def _batched(shape: Sequence[Any]) -> bool:
  return any(map(export.is_symbolic_dim, shape))


def _broadcast(eqn: Any, operand: Constant) -> Constant:
  """Broadcasts a constant as a view that takes no memory."""
  shape = _for_rows(eqn, eqn.params["shape"])
  before = np.ones(len(shape), int)
  for axis, size in zip(
    eqn.params["broadcast_dimensions"], operand.array.shape, strict=True
  ):
    before[axis] = size
  view = np.broadcast_to(operand.array.reshape(before), shape)
  return Constant(view, eqn.params["shape"])


def _for_rows(eqn: Any, param: Any) -> Any:
  """A parameter with two in place of the number of images."""
  if isinstance(param, tuple) and type(param) is tuple:
    return tuple(_for_rows(eqn, item) for item in param)
  if export.is_symbolic_dim(param):
    if str(param) != BATCH:
      raise unsupported(eqn, f"a size of it is {param}, b being of images")
    return _ROWS
  return param
