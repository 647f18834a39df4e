"""A graph of ONNX in the making, without the `onnx` package.

Arithmetic on the channels of a convolution or matrix product, such as a
BatchNorm after it, becomes part of its weights.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

# What takes such arithmetic, and the axis of the result with the channels.
_CHANNEL_AXIS = {"Conv": 1, "Gemm": -1, "MatMul": -1}


@dataclasses.dataclass
class Node:
  """One operation.

  Attributes:
    op: its type in ONNX.
    inputs: names of values; "" for an optional one that is missing.
    outputs: names of values.
    attributes: by name.
  """

  op: str
  inputs: list[str]
  outputs: list[str]
  attributes: dict[str, Any] = dataclasses.field(default_factory=dict)


class Graph:
  """Nodes in the order of execution, and constants by name."""

  def __init__(self) -> None:
    """Makes an empty graph."""
    self.nodes: list[Node] = []
    self.constants: dict[str, np.ndarray] = {}
    self._counts: collections.Counter[str] = collections.Counter()
    self._known: dict[tuple[Any, ...], str] = {}

  def add(self, op: str, inputs: Sequence[str], **attributes: Any) -> str:
    """Appends an operation of one result, and returns the result's name."""
    name = self._name(op)
    self.nodes.append(Node(op, list(inputs), [name], attributes))
    return name

  def constant(self, array: np.ndarray) -> str:
    """Returns the name of a constant; equal small ones have one name."""
    array = np.ascontiguousarray(array).reshape(np.shape(array))
    key = (array.dtype.str, array.shape, array.tobytes())
    if array.size > 64:
      return self._constant(array)
    if key not in self._known:
      self._known[key] = self._constant(array)
    return self._known[key]

  def finish(self, outputs: dict[str, str]) -> None:
    """Names the outputs, merges arithmetic and drops what nothing reads.

    Args:
      outputs: values by the names that they get.
    """
    for name, value in outputs.items():
      self.nodes.append(Node("Identity", [value], [name]))
    self._fold()
    self._drop_unused(set(outputs))

  def _name(self, kind: str) -> str:
    self._counts[kind] += 1
    return f"{kind}_{self._counts[kind]}"

  def _constant(self, array: np.ndarray) -> str:
    name = self._name("constant")
    self.constants[name] = array
    return name

  def _fold(self) -> None:
    """Merges arithmetic with constants into the operation before it."""
    uses = collections.Counter(i for node in self.nodes for i in node.inputs)
    affine: dict[str, _Affine] = {}
    made: list[Node | _Affine] = []
    for node in self.nodes:
      source = self._source(node)
      before = affine.get(source)
      if before and uses[source] == 1 and before.absorb(node, self.constants):
        affine[node.outputs[0]] = before
        continue
      made.append(node)
      if self._takes_arithmetic(node):
        made[-1] = affine[node.outputs[0]] = _Affine(node, self.constants)
    self.nodes = []
    for item in made:
      self.nodes += [item] if isinstance(item, Node) else item.nodes(self)

  def _takes_arithmetic(self, node: Node) -> bool:
    return (
      node.op in _CHANNEL_AXIS
      and len(node.inputs) == 2
      and node.inputs[1] in self.constants
    )

  def _source(self, node: Node) -> str:
    """The input of arithmetic that is no constant; "" of other operations."""
    if node.op not in ("Add", "Sub", "Mul", "Div"):
      return ""
    first, second = node.inputs
    if second in self.constants:
      return first
    return second if node.op in ("Add", "Mul") else ""

  def _drop_unused(self, needed: set[str]) -> None:
    kept = []
    for node in reversed(self.nodes):
      if needed.intersection(node.outputs):
        kept.append(node)
        needed.update(node.inputs)
    self.nodes = kept[::-1]
    self.constants = {k: v for k, v in self.constants.items() if k in needed}


class _Affine:
  """A convolution or matrix product with a factor and offset per channel."""

  def __init__(self, node: Node, constants: dict[str, np.ndarray]):
    self._node = node
    self._weights = constants[node.inputs[1]]
    # Output channels: first in kernels of convolutions, last in matrices.
    self._axis = 0 if node.op == "Conv" else -1
    size = self._weights.shape[self._axis]
    self._factor, self._offset = np.ones(size), np.zeros(size)
    self._output = node.outputs[0]

  def absorb(self, node: Node, constants: dict[str, np.ndarray]) -> bool:
    """Takes over a node's arithmetic if it is the same at all places."""
    name = next((i for i in reversed(node.inputs) if i in constants), "")
    if not name:
      return False
    value = constants[name].astype(np.float64)
    if value.size != 1:
      channels = value.shape[_CHANNEL_AXIS[self._node.op]]
      if not channels == value.size == self._factor.size:
        return False
    value = value.reshape(-1)
    if node.op == "Add":
      self._offset = self._offset + value
    elif node.op == "Sub":
      self._offset = self._offset - value
    else:
      factor = value if node.op == "Mul" else 1 / value
      self._factor, self._offset = self._factor * factor, self._offset * factor
    self._output = node.outputs[0]
    return True

  def nodes(self, graph: Graph) -> list[Node]:
    """The operation with its new weights."""
    node, dtype = self._node, self._weights.dtype
    if self._output == node.outputs[0]:
      return [node]
    shape = [1] * self._weights.ndim
    shape[self._axis] = -1
    weights = (self._weights * self._factor.reshape(shape)).astype(dtype)
    inputs = [node.inputs[0], graph.constant(weights)]
    offset = graph.constant(self._offset.astype(dtype))
    if node.op != "MatMul":
      inputs.append(offset)
      return [Node(node.op, inputs, [self._output], node.attributes)]
    product = node.outputs[0]
    return [
      Node("MatMul", inputs, [product]),
      Node("Add", [product, offset], [self._output]),
    ]
