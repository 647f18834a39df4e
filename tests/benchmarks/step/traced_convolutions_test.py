"""Convolutions of a traced step, ours by themselves and PyTorch's."""

import functools
import importlib.util

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from benchmarks.step import traced_convolutions as step_convolutions
from paws_jax.plan import traced_costs

_NUMBERS = ("NHWC", "HWIO", "NHWC")
_IMAGES, _KERNELS = (2, 7, 6, 3), ((3, 3, 3, 4), (3, 3, 4, 4), (1, 1, 4, 5))
# Strides and padding of both of the first kind, and of the last.
_FIRST, _LAST = ((2, 2), [(1, 1)] * 2), ((2, 2), [(0, 0)] * 2)
_SAME = ((1, 1), [(1, 1)] * 2)
_HAS_TORCH = importlib.util.find_spec("torch") is not None


def _convolve(images, kernel, options):
  return lax.conv_general_dilated(
    images, kernel, *options, dimension_numbers=_NUMBERS
  )


def _loss(kernels, images):
  first, same, last = kernels
  x = _convolve(images, first, _FIRST)
  # In a call of its own, and the same shapes twice.
  for _ in range(2):
    x = jax.jit(_convolve, static_argnums=2)(x, same, _hashable(_SAME))
  return jnp.sum(_convolve(x, last, _LAST) ** 2)


def _hashable(options):
  strides, padding = options
  return strides, tuple(padding)


@functools.cache
def _found():
  kernels = tuple(jnp.ones(shape) for shape in _KERNELS)
  jaxpr = jax.make_jaxpr(jax.grad(_loss))(kernels, jnp.ones(_IMAGES))
  return step_convolutions.find(jaxpr.jaxpr)


def test_every_convolution_and_gradient_is_found():
  found = {
    (c.kind, c.images, c.kernel, c.out, c.strides, c.padding): n
    for c, n in _found().items()
  }
  first = (_IMAGES, _KERNELS[0], (2, 4, 3, 4), (2, 2), ((1, 1), (1, 1)))
  same = ((2, 4, 3, 4), _KERNELS[1], (2, 4, 3, 4), (1, 1), ((1, 1), (1, 1)))
  last = ((2, 4, 3, 4), _KERNELS[2], (2, 2, 2, 5), (2, 2), ((0, 0), (0, 0)))
  forward, by_input, by_kernel = step_convolutions.KINDS
  assert found == {
    (forward, *first): 1,
    (forward, *same): 2,
    (forward, *last): 1,
    # Not of the images, which nothing asks for.
    (by_input, *same): 2,
    (by_input, *last): 1,
    (by_kernel, *first): 1,
    (by_kernel, *same): 2,
    (by_kernel, *last): 1,
  }


def _operands(convolution):
  rng = np.random.default_rng(0)
  draw = functools.partial(rng.standard_normal, dtype=np.float32)
  return {
    name: draw(getattr(convolution, name))
    for name in ("images", "kernel", "out")
  }


def _ours(convolution, operands):
  """By the equation of the step."""
  left, right = {
    step_convolutions.FORWARD: ("images", "kernel"),
    step_convolutions.BY_INPUT: ("out", "kernel"),
    step_convolutions.BY_KERNEL: ("images", "out"),
  }[convolution.kind]
  left, right = operands[left], operands[right]
  assert (left.shape, right.shape) == convolution.operands
  if convolution.kind == step_convolutions.BY_INPUT:
    right = right[::-1, ::-1]
  return jax.jit(convolution.call)(left, right)


def _each():
  return [pytest.param(c, id=f"{c.kind} of {c.kernel}") for c in _found()]


@pytest.mark.parametrize("convolution", _each())
def test_an_equation_by_itself_is_that_of_the_step(convolution):
  operands = _operands(convolution)
  options = convolution.strides, convolution.padding
  out, vjp = jax.vjp(
    lambda images, kernel: _convolve(images, kernel, options),
    operands["images"],
    operands["kernel"],
  )
  by_input, by_kernel = vjp(operands["out"])
  wanted = dict(
    zip(step_convolutions.KINDS, (out, by_input, by_kernel), strict=True)
  )[convolution.kind]
  np.testing.assert_allclose(
    _ours(convolution, operands), wanted, rtol=1e-5, atol=1e-5
  )


@pytest.mark.parametrize("convolution", _each())
def test_flops_are_those_of_the_forward_convolution(convolution):
  shapes = [
    jax.ShapeDtypeStruct(shape, jnp.float32) for shape in convolution.operands
  ]
  jaxpr = jax.jit(convolution.call).trace(*shapes).jaxpr
  # Each output is a sum over the kernel's places and inputs.
  products = np.prod(convolution.out) * np.prod(convolution.kernel[:3])
  if convolution.kind == step_convolutions.BY_INPUT:
    # Each place of the input, by the share of the kernel that the stride hits.
    places = np.prod(convolution.images) / np.prod(convolution.strides)
    products = places * convolution.kernel[3]
    products *= np.prod(convolution.kernel[:2])
  assert traced_costs.flops(jaxpr.jaxpr) == 2 * products


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
@pytest.mark.parametrize("convolution", _each())
def test_the_peer_computes_the_same(convolution):
  from benchmarks.torch_side import convolutions as torch_convolutions

  operands = _operands(convolution)
  arrays = {
    step_convolutions.FORWARD: ("images", "kernel"),
    step_convolutions.BY_INPUT: ("out", "kernel"),
    step_convolutions.BY_KERNEL: ("images", "out"),
  }[convolution.kind]
  call = torch_convolutions.make(
    convolution, *(operands[name] for name in arrays), on_gpu=False
  )
  order = (0, 2, 3, 1)
  if convolution.kind == step_convolutions.BY_KERNEL:
    order = (2, 3, 1, 0)
  np.testing.assert_allclose(
    call().permute(order).numpy(),
    _ours(convolution, operands),
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
def test_the_peer_refuses_what_pytorch_lacks():
  from benchmarks.torch_side import convolutions as torch_convolutions

  def make(padding, **options):
    images, kernel = jnp.ones(_IMAGES), jnp.ones(_KERNELS[0])
    jaxpr = jax.make_jaxpr(
      lambda x, w: _convolve(x, w, ((1, 1), [padding] * 2))
    )(images, kernel)
    (found,) = step_convolutions.find(jaxpr.jaxpr)
    arrays = [np.ones(shape, np.float32) for shape in found.operands]
    torch_convolutions.make(found, *arrays, **options)

  make((1, 1), on_gpu=False)
  with pytest.raises(ValueError, match=r"has padding \(\(0, 1\), \(0, 1\)\)"):
    make((0, 1), on_gpu=False)
  import torch

  if not torch.cuda.is_available():
    with pytest.raises(ValueError, match="install a CUDA build"):
      make((1, 1), on_gpu=True)


@pytest.mark.parametrize(
  ("options", "problem"),
  [
    ({"dimension_numbers": ("NCHW", "HWIO", "NHWC")}, r"\(0, 1, 2, 3\)"),
    (
      {"dimension_numbers": _NUMBERS, "feature_group_count": 3},
      r"groups \(3, 1\)",
    ),
  ],
)
def test_other_convolutions_are_refused(options, problem):
  jaxpr = jax.make_jaxpr(
    lambda x, w: lax.conv_general_dilated(x, w, (1, 1), "SAME", **options)
  )
  images = jnp.ones((2, 3, 5, 3))
  kernel = jnp.ones((3, 3, 3 // options.get("feature_group_count", 1), 3))
  with pytest.raises(ValueError, match=problem):
    step_convolutions.find(jaxpr(images, kernel).jaxpr)


def test_words_for_a_convolution():
  first, *_ = _found()
  assert str(first) == (
    "forward, images 2 x 7 x 6 x 3, kernel 3 x 3 x 3 x 4, stride 2, float32"
  )
