"""From functions in JAX to graphs of ONNX, opset 18."""

# Each registers its operations.
from paws_jax.export.to_onnx import elementwise as _elementwise  # noqa: F401
from paws_jax.export.to_onnx import products as _products  # noqa: F401
from paws_jax.export.to_onnx import shapes as _shapes  # noqa: F401
from paws_jax.export.to_onnx.graph import Graph as Graph
from paws_jax.export.to_onnx.jaxpr import convert as convert

# Of all operators that are written.
OPSET = 18
