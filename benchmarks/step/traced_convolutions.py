"""The convolutions of a traced step, each to be run by itself."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import jax
from jax.extend import core

FORWARD = "forward"
BY_INPUT = "gradient by input"
BY_KERNEL = "gradient by kernel"
KINDS = (FORWARD, BY_INPUT, BY_KERNEL)

# Images NHWC, kernels HWIO, and what JAX makes of that when it differentiates:
# dimension numbers of the left side, the right side and the result.
_KINDS = {
  ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)): FORWARD,
  ((0, 3, 1, 2), (2, 3, 0, 1), (0, 3, 1, 2)): BY_INPUT,
  ((3, 0, 1, 2), (3, 0, 1, 2), (2, 3, 0, 1)): BY_KERNEL,
}


@dataclasses.dataclass(frozen=True)
class Convolution:
  """One that a step has, or one of its two gradients.

  Attributes:
    kind: one of KINDS.
    images: shape [n, H, W, Ch] of what is convolved.
    kernel: shape [h, w, Ch, D].
    out: shape [n, H', W', D] of the forward result.
    dtype: of all of them.
    strides: of the forward convolution, by axis.
    padding: of the forward convolution, (low, high) by axis.
    equation: of the traced program.
  """

  kind: str
  images: tuple[int, ...]
  kernel: tuple[int, ...]
  out: tuple[int, ...]
  dtype: str
  strides: tuple[int, int]
  padding: tuple[tuple[int, int], tuple[int, int]]
  equation: Any = dataclasses.field(compare=False, repr=False)

  def __str__(self):
    """Kind and shapes."""

    def shape(sizes):
      return " x ".join(map(str, sizes))

    return (
      f"{self.kind}, images {shape(self.images)}, kernel {shape(self.kernel)}, "
      f"stride {self.strides[0]}, {self.dtype}"
    )

  @property
  def operands(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shapes of what `call` takes."""
    return {
      FORWARD: (self.images, self.kernel),
      BY_INPUT: (self.out, self.kernel),
      BY_KERNEL: (self.images, self.out),
    }[self.kind]

  def call(self, left: jax.Array, right: jax.Array) -> jax.Array:
    """The equation as the step has it, to be jitted.

    Args:
      left: of the shape and dtype that `operands` and `dtype` tell.
      right: of the other operand's shape and dtype; BY_INPUT takes the kernel
        turned by 180 degrees, as the gradient does.
    """
    return self.equation.primitive.bind(left, right, **self.equation.params)


def find(jaxpr: Any) -> Mapping[Convolution, int]:
  """The distinct convolutions of a program, in order, and how many of each.

  Args:
    jaxpr: of the traced step. Inside `shard_map`, shapes are those of one
      device. What a loop repeats counts once.

  Raises:
    ValueError: one whose images are not NHWC, whose kernel is not HWIO, or
      which has groups.
  """
  equations = [(_kind(e), e) for e in _equations(jaxpr)]
  # Gradients know neither strides nor padding as they were; convolutions of the
  # same shapes may differ in padding, which costs the same.
  forward = {
    _shapes(kind, equation): equation.params
    for kind, equation in equations
    if kind == FORWARD
  }
  found: dict[Convolution, int] = collections.Counter()
  for kind, equation in equations:
    shapes = _shapes(kind, equation)
    convolution = Convolution(
      kind,
      *shapes,
      dtype=str(equation.invars[0].aval.dtype),
      strides=tuple(forward[shapes]["window_strides"]),
      padding=tuple(map(tuple, forward[shapes]["padding"])),
      equation=equation,
    )
    found[convolution] += 1
  return found


def _equations(jaxpr: Any) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    if equation.primitive.name == "conv_general_dilated":
      yield equation
    for inner in core.jaxprs_in_params(equation.params):
      yield from _equations(inner)


def _kind(equation: Any) -> str:
  numbers = tuple(map(tuple, equation.params["dimension_numbers"]))
  groups = tuple(
    equation.params[name]
    for name in ("feature_group_count", "batch_group_count")
  )
  if numbers not in _KINDS or groups != (1, 1):
    raise ValueError(
      f"a convolution of the step has dimension numbers {numbers} and groups "
      f"{groups}: known are images NHWC and kernels HWIO without groups."
    )
  return _KINDS[numbers]


def _shapes(kind: str, equation: Any) -> tuple[tuple[int, ...], ...]:
  """Shapes of images, kernel and forward result."""
  left, right = (variable.aval.shape for variable in equation.invars)
  result = equation.outvars[0].aval.shape
  return {
    FORWARD: (left, right, result),
    BY_INPUT: (result, right, left),
    BY_KERNEL: (left, result, right),
  }[kind]
