"""Operations on numbers at the same place, in ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax.export.to_onnx import jaxpr
from paws_jax.export.to_onnx.jaxpr import Constant
from paws_jax.export.to_onnx.jaxpr import Converter
from paws_jax.export.to_onnx.jaxpr import Operand
from paws_jax.export.to_onnx.jaxpr import Value
from paws_jax.export.to_onnx.jaxpr import handles
from paws_jax.export.to_onnx.jaxpr import unsupported

_SAME = {
  "abs": "Abs",
  "add": "Add",
  "add_any": "Add",
  "and": "And",
  "ceil": "Ceil",
  "cos": "Cos",
  "div": "Div",
  "eq": "Equal",
  "erf": "Erf",
  "exp": "Exp",
  "floor": "Floor",
  "ge": "GreaterOrEqual",
  "gt": "Greater",
  "le": "LessOrEqual",
  "log": "Log",
  "logistic": "Sigmoid",
  "lt": "Less",
  "max": "Max",
  "min": "Min",
  "mul": "Mul",
  "neg": "Neg",
  "not": "Not",
  "or": "Or",
  "pow": "Pow",
  "sign": "Sign",
  "sin": "Sin",
  "sqrt": "Sqrt",
  "sub": "Sub",
  "tanh": "Tanh",
}
_LOGICAL = ("and", "or", "not")


def elementwise(
  converter: Converter,
  eqn: Any,
  op: str,
  operands: Sequence[Operand],
  **attributes: Any,
) -> Value:
  """Adds an operation of numbers at the same place, or of one number.

  All get the order of axes of the first value.
  """
  order = next(o.order for o in operands if isinstance(o, Value))
  names = [_extensible(converter, operand, order) for operand in operands]
  name = converter.graph.add(op, names, **attributes)
  return Value(name, eqn.outvars[0].aval.shape, order)


def _extensible(
  converter: Converter, operand: Operand, order: tuple[int, ...]
) -> str:
  """Name of an operand that arithmetic extends along axes of size 1."""
  if not operand.shape:
    order = ()
  if isinstance(operand, Value):
    return converter.stored(operand, order)
  array = jaxpr.one_row(operand)
  # What was only repeated there.
  array = array[tuple(slice(None if step else 1) for step in array.strides)]
  return converter.graph.constant(array.transpose(order))


@handles(*_SAME)
def _same_in_onnx(
  converter: Converter, eqn: Any, operands: list[Any]
) -> Operand:
  name = eqn.primitive.name
  if name in _LOGICAL and eqn.invars[0].aval.dtype != bool:
    raise unsupported(eqn, "its operands are bits of integers")
  return elementwise(converter, eqn, _SAME[name], operands)


@handles("ne")
def _ne(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  equal = elementwise(converter, eqn, "Equal", operands)
  return elementwise(converter, eqn, "Not", [equal])


@handles("rem")
def _remainder(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  return elementwise(converter, eqn, "Mod", operands, fmod=1)


@handles("rsqrt")
def _rsqrt(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  root = elementwise(converter, eqn, "Sqrt", operands)
  return elementwise(converter, eqn, "Reciprocal", [root])


@handles("erfc")
def _erfc(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  erf = elementwise(converter, eqn, "Erf", operands)
  one = Constant(np.ones((), eqn.invars[0].aval.dtype), ())
  return elementwise(converter, eqn, "Sub", [one, erf])


@handles("square")
def _square(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  return elementwise(converter, eqn, "Mul", operands * 2)


@handles("integer_pow")
def _integer_pow(
  converter: Converter, eqn: Any, operands: list[Any]
) -> Operand:
  if eqn.params["y"] == 2:
    return _square(converter, eqn, operands)
  power = np.asarray(eqn.params["y"], eqn.invars[0].aval.dtype)
  return elementwise(converter, eqn, "Pow", [*operands, Constant(power, ())])


@handles("round")
def _round(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  if int(eqn.params["rounding_method"]) != 1:
    raise unsupported(eqn, "it rounds halves away from zero")
  return elementwise(converter, eqn, "Round", operands)


@handles("clamp")
def _clamp(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  lowest, value, highest = operands
  above = elementwise(converter, eqn, "Max", [lowest, value])
  return elementwise(converter, eqn, "Min", [above, highest])


@handles("select_n")
def _select(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  condition, *cases = operands
  if len(cases) != 2 or eqn.invars[0].aval.dtype != bool:
    raise unsupported(eqn, "it selects by a number")
  if _is_relu(converter, condition, cases):
    return elementwise(converter, eqn, "Relu", [cases[0]])
  return elementwise(converter, eqn, "Where", [condition, *reversed(cases)])


def _is_relu(
  converter: Converter, condition: Operand, cases: Sequence[Operand]
) -> bool:
  """Whether it selects 0 where a value is at most 0, else the value."""
  if not isinstance(condition, Value):
    return False
  how, compared = converter.made_by.get(condition.name, ("", []))
  return (
    how == "le"
    and compared[0] == cases[0]
    and isinstance(cases[0], Value)
    and condition.order == cases[0].order
    and all(_is_zero(operand) for operand in (compared[1], cases[1]))
  )


def _is_zero(operand: Operand) -> bool:
  return isinstance(operand, Constant) and not operand.array.any()


@handles("convert_element_type")
def _convert(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  (value,) = operands
  dtype = np.dtype(eqn.params["new_dtype"])
  if eqn.invars[0].aval.dtype == dtype:
    return value
  name = converter.graph.add("Cast", [value.name], to=dtype)
  return Value(name, value.shape, value.order)


@handles("stop_gradient", "copy", "copy_p")
def _same_value(converter: Converter, eqn: Any, operands: list[Any]) -> Operand:
  return operands[0]
