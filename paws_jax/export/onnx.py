"""A program as ONNX: one file, with its weights.

DIRECTORY/model.onnx  for any number of images, in float32
"""

from __future__ import annotations

import contextlib
import functools
import json
import pathlib
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from paws_jax import errors
from paws_jax import packages
from paws_jax.export import program as program_lib
from paws_jax.export import to_onnx

FILE = "model.onnx"
IMAGES = "images"
# Of opset 18; read by all runtimes that know it.
IR_VERSION = 8
# The limit of a file is 2 GiB.
MAX_BYTES = 2**31 - 2**24
# Largest difference of probabilities, and of embeddings of unit length. It is
# the rounding of deep networks at small temperatures; those of tests stay below
# 1e-5.
TOLERANCE = 1e-4
# Where levels are rounded in between: halves may become either neighbor.
ROUNDED_TOLERANCE = 1e-3

Apply = Callable[[Mapping[str, Any], jax.Array], dict[str, jax.Array]]


def missing() -> str:
  """Reason why ONNX cannot be written here, and remedy; "": it can."""
  if not packages.is_installed("onnx"):
    return "it needs onnx, which is not installed: pip install 'paws_jax[onnx]'"
  return ""


def write(
  program: program_lib.Program, directory: pathlib.Path
) -> dict[str, Any]:
  """Writes the program, and runs it where onnxruntime is installed.

  Args:
    program: what to write.
    directory: an empty one.

  Returns:
    Entries of model.json about the file.

  Raises:
    errors.InputError: when the network cannot be written as ONNX.
    errors.DisagreementError: when the file has other answers than the program.
    OSError: when it cannot be written.
  """
  size = sum(array.nbytes for array in program.weights.values())
  if size > MAX_BYTES:
    raise errors.InputError(
      f"--targets=onnx: {size / 1e9:.1f} GB of weights do not fit into one "
      "file of ONNX, which has at most 2.1 GB: export stablehlo or savedmodel "
      "instead"
    )
  apply = program_lib.with_dtype(program.classifier, "float32")
  with _exact():
    graph = to_onnx.convert(
      functools.partial(apply, program.weights),
      shape=program.image_shape,
      dtype=np.uint8,
      input_name=IMAGES,
    )
    content = _content(program, graph)
    rounds = any(node.op == "Round" for node in graph.nodes)
    difference = _check(
      program,
      apply,
      content,
      tolerance=ROUNDED_TOLERANCE if rounds else TOLERANCE,
    )
  (directory / FILE).write_bytes(content)
  return {
    **program.interface,
    "activations": {"all": "float32"},
    "files": {
      "format": "onnx",
      "program": FILE,
      "opset": to_onnx.OPSET,
      "ir_version": IR_VERSION,
      "largest_difference": difference,
    },
  }


def encode(
  graph: to_onnx.Graph,
  *,
  inputs: Mapping[str, tuple[Any, Sequence[Any]]],
  outputs: Mapping[str, tuple[Any, Sequence[Any]]],
  properties: Mapping[str, str] = types.MappingProxyType({}),
) -> bytes:
  """Returns the content of a file, after the checks of `onnx`.

  Args:
    graph: finished.
    inputs: dtypes and shapes; a size that is a word is free.
    outputs: as `inputs`.
    properties: for readers of the file.
  """
  import onnx
  from onnx import helper
  from onnx import numpy_helper

  def values(described: Mapping[str, tuple[Any, Sequence[Any]]]) -> list[Any]:
    return [
      helper.make_tensor_value_info(name, _number(np.dtype(dtype)), sizes)
      for name, (dtype, sizes) in described.items()
    ]

  nodes = [
    helper.make_node(
      node.op,
      node.inputs,
      node.outputs,
      name=node.outputs[0],
      **{key: _number(value) for key, value in node.attributes.items()},
    )
    for node in graph.nodes
  ]
  constants = [
    numpy_helper.from_array(array, name)
    for name, array in graph.constants.items()
  ]
  model = helper.make_model(
    helper.make_graph(
      nodes, "paws_jax", values(inputs), values(outputs), constants
    ),
    producer_name="paws_jax",
    opset_imports=[helper.make_opsetid("", to_onnx.OPSET)],
    ir_version=IR_VERSION,
  )
  helper.set_model_props(model, dict(properties))
  onnx.checker.check_model(model, full_check=True)
  return model.SerializeToString()


def _number(value: Any) -> Any:
  """The number by which ONNX knows a dtype; anything else as it is."""
  if not isinstance(value, np.dtype):
    return value
  from onnx import helper

  return helper.np_dtype_to_tensor_dtype(value)


def _content(program: program_lib.Program, graph: to_onnx.Graph) -> bytes:
  """The program's file, which says what it takes and gives."""
  interface = program.interface
  described = {
    "class_names": program.description["class_names"],
    "input": interface["input"],
  }
  return encode(
    graph,
    inputs={IMAGES: (np.uint8, interface["input"]["shape"])},
    outputs={
      name: (np.float32, output["shape"])
      for name, output in interface["outputs"].items()
    },
    properties={key: json.dumps(value) for key, value in described.items()},
  )


def _check(
  program: program_lib.Program,
  apply: Apply,
  content: bytes,
  *,
  tolerance: float,
) -> float | None:
  """Returns the largest difference from the program; None without onnxruntime.

  Args:
    program: whose weights to use.
    apply: what the file must agree with.
    content: of the file.
    tolerance: largest difference.

  Raises:
    errors.DisagreementError: when it is larger.
  """
  if not packages.is_installed("onnxruntime"):
    return None
  import onnxruntime

  session = onnxruntime.InferenceSession(
    content, providers=["CPUExecutionProvider"]
  )
  random = np.random.default_rng(0)
  images = random.integers(0, 256, (3, *program.image_shape), np.uint8)
  # The images differ in brightness, so that their answers differ.
  images[1:] //= np.asarray([2, 4], np.uint8)[:, None, None, None]
  expected = jax.jit(apply)(program.weights, images)
  largest = 0.0
  # One image, too: the number is free.
  for count in (1, len(images)):
    found = session.run(list(expected), {IMAGES: images[:count]})
    for name, rows in zip(expected, found, strict=True):
      wanted = np.asarray(expected[name])[:count]
      if name == program_lib.EMBEDDINGS:
        norms = np.linalg.norm(wanted, axis=1, keepdims=True)
        wanted, rows = wanted / norms, rows / norms
      # NaN is a difference.
      difference = float(np.max(np.abs(rows - wanted)))
      if not difference <= tolerance:
        raise errors.DisagreementError(
          f"--targets=onnx: {name} of the file differ by {difference:.1e} from "
          "the classifier's; nothing was written. Export stablehlo instead, "
          "and report this"
        )
      largest = max(largest, difference)
  return largest


@contextlib.contextmanager
def _exact() -> Iterator[None]:
  """Computes on a CPU if there is one, and without shorter numbers."""
  with contextlib.ExitStack() as stack:
    stack.enter_context(jax.default_matmul_precision("highest"))
    with contextlib.suppress(RuntimeError):
      device = jax.local_devices(backend="cpu")[0]
      stack.enter_context(jax.default_device(device))
    yield
