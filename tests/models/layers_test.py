"""The rectifier: values, gradients, what it hides, and how it is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax.models import layers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_relu_is_the_maximum_with_zero(dtype):
  x = jnp.array([-2.5, -0.0, 0.0, 1e-30, 3.0, np.inf, -np.inf], dtype)
  y = layers.relu(x)
  assert y.dtype == x.dtype
  np.testing.assert_array_equal(y, jnp.maximum(x, 0))


def test_the_gradient_of_relu_is_a_step_that_is_0_at_0():
  x = jnp.array([-1.0, -0.0, 0.0, 2.0])
  gradient = jax.grad(lambda x: jnp.sum(layers.relu(x)))(x)
  np.testing.assert_array_equal(gradient, [0, 0, 0, 1])


def test_relu_hides_no_nan():
  with jax.debug_nans(False):
    assert jnp.isnan(layers.relu(jnp.array(np.nan)))


def test_relu_is_no_maximum_in_the_program():
  """That is what its loops would repeat on a CPU."""
  program = jax.jit(layers.relu).lower(jnp.zeros(4)).as_text()
  assert "stablehlo.select" in program
  assert "stablehlo.maximum" not in program
