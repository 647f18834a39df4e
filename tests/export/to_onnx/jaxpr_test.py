"""From JAX to ONNX: each kind of operation, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from paws_jax import errors
from paws_jax.export import onnx
from paws_jax.export import to_onnx

pytestmark = pytest.mark.unoptimized
SHAPE = (4, 6, 4)
_RANDOM = np.random.default_rng(0)
IMAGES = _RANDOM.normal(size=(3, *SHAPE)).astype(np.float32)


def _array(*shape):
  return _RANDOM.normal(size=shape).astype(np.float32)


KERNEL, DEPTHWISE, CHANNELS = _array(3, 3, 4, 5), _array(3, 3, 1, 8), _array(4)
DENSE, TOKEN, ROWS = _array(4, 7), _array(1, 1, 4), _array(6, 6)


def _graph(function):
  return to_onnx.convert(
    lambda images: {"y": function(images)},
    shape=SHAPE,
    dtype=np.float32,
    input_name="images",
  )


def _ops(function):
  return [node.op for node in _graph(function).nodes]


def _conv(x, kernel=KERNEL, **options):
  settings = {"window_strides": (1, 1), "padding": "SAME"} | options
  return lax.conv_general_dilated(
    x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), **settings
  )


def _attention(x):
  tokens = x.reshape(x.shape[0], -1, 2, 2)
  logits = jnp.einsum("bqhd,bkhd->bhqk", tokens, tokens)
  return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), tokens)


def _with_token(x):
  rows = x.reshape(x.shape[0], -1, 4)
  token = jnp.broadcast_to(TOKEN, (x.shape[0], 1, 4))
  return jnp.concatenate([token, rows], axis=1)


def _layer_norm(x):
  mean = jnp.mean(x, axis=-1, keepdims=True)
  var = jnp.mean(jnp.square(x - mean), axis=-1, keepdims=True)
  return (x - mean) * lax.rsqrt(var + 1e-6) * CHANNELS[None, None, None] + 1


FUNCTIONS = {
  "arithmetic": lambda x: -abs(x) * 2 + jnp.maximum(x, 0.5) / (x * x + 1),
  "functions": lambda x: (
    jnp.exp(x) + jnp.log(abs(x) + 1) + jnp.tanh(x) + jnp.sqrt(abs(x))
  ),
  "waves": lambda x: jnp.sin(x) + jnp.cos(x) + jnp.sign(x) + jnp.floor(x),
  "powers": lambda x: x**3 + abs(x) ** 0.5 + (1 + x**2) ** -1,
  "gelu": lambda x: (
    jax.nn.gelu(x, approximate=False) + jax.nn.gelu(x, approximate=True)
  ),
  "swish": lambda x: jax.nn.swish(x) + jax.nn.relu6(x),
  "round": lambda x: jnp.round(3 * x),
  "clip": lambda x: jnp.clip(x, -0.3, 0.4),
  "select": lambda x: jnp.where((x > 0) & ~(x > 1) | (x != x), x, -2 * x),
  "relu": lambda x: jnp.where(x <= 0, 0, x),
  "mask of a transpose": lambda x: jnp.where(
    (x <= 0).transpose(0, 3, 2, 1), 0, x
  ),
  "cast": lambda x: (x > 0).astype(jnp.float32) + x.astype(jnp.int32) // 2,
  "reductions": lambda x: (
    jnp.max(x, axis=(1, 2)) + jnp.min(x, axis=(1, 2)) + jnp.mean(x, (1, 2))
  ),
  "of a batch": lambda x: x - jnp.sum(x, axis=0, keepdims=True),
  "transpose": lambda x: x.transpose(0, 3, 1, 2) + x.transpose(0, 3, 1, 2) ** 2,
  "repeat": lambda x: jnp.broadcast_to(x[:, :1], x.shape) + x,
  "slice": lambda x: (
    x[:, 1:3, 1:]
    * lax.slice(x, (0, 0, 0, 0), (x.shape[0], 3, 6, 4), (1, 2, 1, 1))[:, :, :-1]
  ),
  "index": lambda x: x[:, 0] + x[:, -1],
  "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
  "convolution": lambda x: _conv(x, window_strides=(2, 1)),
  "dilated": lambda x: _conv(x, rhs_dilation=(2, 2)),
  "depthwise": lambda x: _conv(x, DEPTHWISE, feature_group_count=4),
  "two convolutions": lambda x: _conv(jnp.tanh(_conv(x))[..., :4]) ** 2,
  "max pool": lambda x: nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1))),
  "mean of a convolution": lambda x: jnp.mean(_conv(x), axis=(1, 2)),
  "rows of a convolution": lambda x: jnp.max(_conv(x), axis=1),
  "shape of a convolution": lambda x: _conv(x).reshape(x.shape[0], -1),
  "dense": lambda x: jnp.mean(x, axis=(1, 2)) @ DENSE + 1,
  "dense of rows": lambda x: x @ DENSE * 2 + 1,
  "matrix on the left": lambda x: jnp.einsum("ij,bjkc->bikc", ROWS[:4, :4], x),
  "matrix of each image": lambda x: jnp.einsum(
    "bij,bhjc->bhic", jnp.broadcast_to(ROWS, (x.shape[0], 6, 6)), x
  ),
  "attention": _attention,
  "token": _with_token,
  "layer norm": _layer_norm,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_onnxruntime_computes_what_jax_does(name):
  pytest.importorskip("onnx")
  onnxruntime = pytest.importorskip("onnxruntime")
  function = FUNCTIONS[name]
  expected = np.asarray(jax.jit(function)(IMAGES))
  content = onnx.encode(
    _graph(function),
    inputs={"images": (np.float32, ["b", *SHAPE])},
    outputs={"y": (np.float32, [None] * expected.ndim)},
  )
  session = onnxruntime.InferenceSession(content)
  for count in (3,) if name == "of a batch" else (1, 3):
    (found,) = session.run(None, {"images": IMAGES[:count]})
    np.testing.assert_allclose(
      found, expected[:count], rtol=1e-5, atol=1e-5, strict=True
    )


def _block(x):
  """A convolution, a BatchNorm with running statistics, a ReLU, a Dense."""
  y = _conv(x)
  shift, factor, offset = _array(3, 1, 1, 1, 5)
  y = (y - shift) * factor / 3 + offset
  y = jnp.mean(jnp.where(y <= 0, 0, y), axis=(1, 2))
  return (y @ _array(5, 2) - _array(1, 2)) * _array(1, 2) + 1


def test_batch_norms_become_weights():
  ops = _ops(_block)
  assert ops.pop() == "Identity"
  assert ops == ["Transpose", "Conv", "Relu", "ReduceSum", "Div", "Gemm"]


def test_arithmetic_that_others_read_too_is_kept():
  def shared(x):
    y = _conv(x)
    return y * 2 + y

  assert _ops(shared).count("Mul") == 1


def test_convolutions_in_a_row_need_one_transpose():
  ops = _ops(
    lambda x: jnp.mean(_conv(jnp.tanh(_conv(x, _array(3, 3, 4, 4)))), (1, 2))
  )
  assert ops.count("Conv") == 2
  assert ops.count("Transpose") == 1


def test_constants_are_computed():
  def function(x):
    weights = jnp.tanh(jnp.arange(4.0)) @ DENSE
    return x * jnp.sum(weights)

  assert _ops(function) == ["Mul", "Identity"]


@pytest.mark.parametrize(
  ("function", "words"),
  [
    (lambda x: jnp.sort(x, axis=-1), r"an operation \(sort\).*not known"),
    (lambda x: jnp.cumsum(x, axis=-1), r"an operation \(cumsum\)"),
    (
      lambda x: x + jnp.arange(x.shape[0])[:, None, None, None],
      "numbers the images of a batch",
    ),
    (lambda x: x / x.shape[0], "one value from all images of a batch"),
    (
      lambda x: x * jnp.sum(jnp.broadcast_to(CHANNELS, (x.shape[0], 4))),
      r"\(reduce_sum\).*one value from all images",
    ),
    (
      lambda x: jnp.broadcast_to(
        jnp.sum(x, axis=0), (x.shape[0], *SHAPE)
      ).reshape(x.shape[0], -1),
      "repeats a value for each image",
    ),
  ],
  ids=["sort", "cumsum", "numbers", "count", "sum", "repeat"],
)
def test_what_cannot_be_written_is_named(function, words):
  with pytest.raises(errors.InputError, match=words):
    _graph(function)
