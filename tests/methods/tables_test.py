"""Updates of averages that stay what they are where nothing changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax.methods import tables


@pytest.mark.parametrize("momentum", [0.9, 0.99, 0.999, 0.9999])
@pytest.mark.parametrize("compiled", [True, False])
def test_the_average_of_equal_values_is_that_value(momentum, compiled):
  # As of a frozen trunk, whose bits are part of the key of its features.
  # Compiled for a CPU, products are not rounded before they are added.
  values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
  moving = np.zeros(3, np.float32)
  new = {"trunk": values, "head": moving + 1}

  def move(average, new):
    return tables.ema(average, new, momentum=momentum, finite=jnp.array(True))

  average = {"trunk": values, "head": moving}
  for _ in range(2):
    average = (jax.jit(move) if compiled else move)(average, new)
  np.testing.assert_array_equal(average["trunk"], values)
  np.testing.assert_allclose(average["head"], 1 - momentum**2, rtol=1e-3)


def test_a_step_that_is_not_finite_moves_nothing():
  old, new = np.float32([1, 2]), np.float32([np.nan, 5])
  for finite, expected in ((False, old), (True, [np.nan, 3.5])):
    moved = tables.ema(old, new, momentum=0.5, finite=jnp.array(finite))
    np.testing.assert_array_equal(moved, expected)
