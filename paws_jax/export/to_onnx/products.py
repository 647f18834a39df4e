"""Convolutions, pooling and matrix products, in ONNX."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

from jax import export

from paws_jax.export.to_onnx import jaxpr
from paws_jax.export.to_onnx.jaxpr import Constant
from paws_jax.export.to_onnx.jaxpr import Converter
from paws_jax.export.to_onnx.jaxpr import Operand
from paws_jax.export.to_onnx.jaxpr import Value
from paws_jax.export.to_onnx.jaxpr import handles
from paws_jax.export.to_onnx.jaxpr import unsupported


@handles("conv_general_dilated")
def _convolution(
  converter: Converter, eqn: Any, operands: list[Any]
) -> Operand:
  params = eqn.params
  names = params["dimension_numbers"]
  if params["batch_group_count"] != 1 or set(params["lhs_dilation"]) != {1}:
    raise unsupported(eqn, "it is a transposed convolution or a gradient")
  before, after = zip(*params["padding"], strict=True)
  if min(before + after) < 0:
    raise unsupported(eqn, "its padding is negative")
  name = converter.graph.add(
    "Conv",
    [
      converter.stored(converter.dynamic(operands[0]), names.lhs_spec),
      converter.stored(operands[1], names.rhs_spec),
    ],
    strides=list(params["window_strides"]),
    pads=[*before, *after],
    dilations=list(params["rhs_dilation"]),
    group=params["feature_group_count"],
  )
  return Value(name, eqn.outvars[0].aval.shape, tuple(names.out_spec))


@handles("reduce_window_max")
def _max_pool(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  (value,) = operands
  params, last = eqn.params, len(value.shape) - 1
  windows = [
    params["window_dimensions"],
    params["window_strides"],
    params["padding"],
    params["window_dilation"],
  ]
  unused = (1, 1, (0, 0), 1)
  ends = (tuple(each[axis] for each in windows) for axis in (0, last))
  if any(end != unused for end in ends) or last < 2:
    raise unsupported(eqn, "its windows span images or channels")
  if set(params["base_dilation"]) != {1}:
    raise unsupported(eqn, "it pads between numbers")
  sizes, strides, padding, dilations = (each[1:last] for each in windows)
  before, after = zip(*padding, strict=True)
  # Images, channels, places.
  order = (0, last, *range(1, last))
  name = converter.graph.add(
    "MaxPool",
    [converter.stored(value, order)],
    kernel_shape=list(sizes),
    strides=list(strides),
    pads=[*before, *after],
    dilations=list(dilations),
  )
  return Value(name, eqn.outvars[0].aval.shape, order)


@handles("dot_general")
def _dot(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  left, right = operands
  shape = eqn.outvars[0].aval.shape
  order = tuple(range(len(shape)))
  contracted, batched = eqn.params["dimension_numbers"]
  last = len(left.shape) - 1
  if (
    isinstance(left, Value)
    and isinstance(right, Constant)
    and len(right.shape) == 2
    and tuple(contracted[0]) == (last,)
    and not batched[0]
  ):
    inner = contracted[1][0]
    names = [
      converter.stored(left),
      converter.stored(right, (inner, 1 - inner)),
    ]
    op = "Gemm" if last == 1 else "MatMul"
    return Value(converter.graph.add(op, names), shape, order)
  names, equation = _einsum(converter, eqn, operands)
  name = converter.graph.add("Einsum", names, equation=equation)
  return Value(name, shape, order)


def _einsum(
  converter: Converter, eqn: Any, operands: Sequence[Operand]
) -> tuple[list[str], str]:
  """Inputs and equation of any product; axes stay where they are stored."""
  letters = iter(string.ascii_lowercase)
  contracted, batched = eqn.params["dimension_numbers"]
  labels: list[dict[int, str]] = [{}, {}]
  for pairs in (batched, contracted):
    for first, second in zip(*pairs, strict=True):
      labels[0][first] = labels[1][second] = next(letters)
  result = [labels[0][axis] for axis in batched[0]]
  for operand, named in zip(operands, labels, strict=True):
    for axis in range(len(operand.shape)):
      if axis not in named:
        named[axis] = next(letters)
        result.append(named[axis])
  names, terms = [], []
  for operand, named, together in zip(operands, labels, batched, strict=True):
    name, order = _without_images(converter, eqn, operand, together)
    names.append(name)
    terms.append("".join(named[axis] for axis in order))
  return names, f"{','.join(terms)}->{''.join(result)}"


def _without_images(
  converter: Converter, eqn: Any, operand: Operand, batched: Sequence[int]
) -> tuple[str, Sequence[int]]:
  """Name and axes as stored; a constant has none for the images."""
  if isinstance(operand, Value):
    return operand.name, operand.order
  array = jaxpr.one_row(operand)
  images = tuple(
    axis
    for axis, size in enumerate(operand.shape)
    if export.is_symbolic_dim(size)
  )
  if not set(images) <= set(batched):
    raise unsupported(eqn, "it repeats a value for each image")
  name = converter.graph.constant(array.squeeze(images))
  return name, [axis for axis in range(array.ndim) if axis not in images]
