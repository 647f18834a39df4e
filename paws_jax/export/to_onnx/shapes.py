"""Reductions, slices and changes of the shape, in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax import export

from paws_jax.export.to_onnx.jaxpr import Constant
from paws_jax.export.to_onnx.jaxpr import Converter
from paws_jax.export.to_onnx.jaxpr import Operand
from paws_jax.export.to_onnx.jaxpr import Value
from paws_jax.export.to_onnx.jaxpr import handles
from paws_jax.export.to_onnx.jaxpr import unsupported

_REDUCTIONS = {
  "reduce_max": "ReduceMax",
  "reduce_min": "ReduceMin",
  "reduce_prod": "ReduceProd",
  "reduce_sum": "ReduceSum",
}
# Larger than any size.
_END = np.iinfo(np.int64).max


@handles(*_REDUCTIONS)
def _reduce(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  (value,) = operands
  axes = eqn.params["axes"]
  places = sorted(value.order.index(axis) for axis in axes)
  name = converter.graph.add(
    _REDUCTIONS[eqn.primitive.name],
    [value.name, converter.integers(places)],
    keepdims=0,
  )
  left = sorted(set(range(len(value.shape))) - set(axes))
  order = tuple(left.index(axis) for axis in value.order if axis in left)
  return Value(name, eqn.outvars[0].aval.shape, order)


@handles("transpose")
def _transpose(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  (value,) = operands
  permutation = eqn.params["permutation"]
  order = tuple(permutation.index(axis) for axis in value.order)
  return Value(value.name, eqn.outvars[0].aval.shape, order)


@handles("reshape", "squeeze", "expand_dims")
def _reshape(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  shape = eqn.outvars[0].aval.shape
  return _reshaped(converter, eqn, operands[0], shape)


def _reshaped(
  converter: Converter, eqn: Any, value: Value, shape: Sequence[Any]
) -> Value:
  if tuple(shape) == value.shape:
    return value
  sizes = [-1 if export.is_symbolic_dim(size) else size for size in shape]
  if sizes.count(-1) > 1:
    raise unsupported(eqn, "two sizes of its result are not fixed")
  inputs = [converter.stored(value), converter.integers(sizes)]
  name = converter.graph.add("Reshape", inputs)
  return Value(name, tuple(shape), tuple(range(len(shape))))


@handles("broadcast_in_dim")
def _broadcast(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  (value,) = operands
  shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
  between = [1] * len(shape)
  for place, size in zip(places, value.shape, strict=True):
    between[place] = size
  value = _reshaped(converter, eqn, value, between)
  larger = [
    1 if size == before else size
    for size, before in zip(shape, between, strict=True)
  ]
  if all(size == 1 for size in larger):
    return value
  if any(map(export.is_symbolic_dim, larger)):
    raise unsupported(eqn, "it repeats a value for each image")
  inputs = [converter.stored(value), converter.integers(larger)]
  name = converter.graph.add("Expand", inputs)
  return Value(name, tuple(shape), tuple(range(len(shape))))


@handles("concatenate")
def _concatenate(
  converter: Converter, eqn: Any, operands: list[Any]
) -> Operand:
  names = [converter.stored(converter.dynamic(value)) for value in operands]
  axis, shape = eqn.params["dimension"], eqn.outvars[0].aval.shape
  name = converter.graph.add("Concat", names, axis=axis)
  return Value(name, shape, tuple(range(len(shape))))


@handles("slice")
def _slice(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  params = eqn.params
  return _cut(
    converter,
    operands[0],
    eqn.outvars[0].aval.shape,
    starts=params["start_indices"],
    ends=params["limit_indices"],
    strides=params["strides"],
  )


@handles("gather")
def _gather(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  """One slice at a place that is known: x[:, 0] for any number of images."""
  value, places = operands
  params, names = eqn.params, eqn.params["dimension_numbers"]
  shape = eqn.outvars[0].aval.shape
  if (
    not isinstance(places, Constant)
    or places.array.ndim != 1
    or names.offset_dims != tuple(range(len(shape)))
  ):
    raise unsupported(eqn, "it reads other places than one slice")
  starts = [0] * len(value.shape)
  for axis, place in zip(names.start_index_map, places.array, strict=True):
    starts[axis] = int(place)
  sizes = params["slice_sizes"]
  ends = [start + size for start, size in zip(starts, sizes, strict=True)]
  part = _cut(converter, value, sizes, starts=starts, ends=ends)
  return _reshaped(converter, eqn, part, shape)


def _cut(
  converter: Converter,
  value: Value,
  shape: Sequence[Any],
  *,
  starts: Sequence[Any],
  ends: Sequence[Any],
  strides: Sequence[int] | None = None,
) -> Value:
  """A slice; of all images where the end is their number."""
  rank = len(value.shape)
  last = [_END if export.is_symbolic_dim(end) else end for end in ends]
  vectors = (starts, last, range(rank), strides or [1] * rank)
  inputs = [converter.stored(value), *map(converter.integers, vectors)]
  name = converter.graph.add("Slice", inputs)
  return Value(name, tuple(shape), tuple(range(rank)))


@handles("pad")
def _pad(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  value, filler = operands
  before, after, inside = zip(*eqn.params["padding_config"], strict=True)
  if any(inside) or isinstance(filler, Value):
    raise unsupported(eqn, "it pads between numbers, or with computed ones")
  value = converter.dynamic(value)
  inputs = [
    converter.stored(value),
    converter.integers([*before, *after]),
    converter.stored(filler),
  ]
  name = converter.graph.add("Pad", inputs)
  return Value(name, eqn.outvars[0].aval.shape, tuple(range(len(value.shape))))
