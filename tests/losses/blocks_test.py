"""Losses in blocks are those of all rows, and so are their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses

pytestmark = pytest.mark.unoptimized(exact=True)
_RNG = np.random.default_rng(0)
_ROWS = _RNG.normal(size=(12, 5))
_KEYS = np.concatenate([_RNG.normal(size=(4, 5)), _ROWS])
_LABELS = np.eye(3)[np.arange(16) % 3]


def _vote(rows, keys, num_blocks):
  return losses.soft_nearest_neighbours(
    rows, keys, jnp.asarray(_LABELS), temperature=0.2, num_blocks=num_blocks
  )


def _nt_xent(rows, keys, num_blocks):
  return losses.nt_xent_rows(
    rows, keys, first=4, temperature=0.2, num_blocks=num_blocks
  )


@pytest.mark.parametrize("function", [_vote, _nt_xent])
def test_blocks_give_the_same(function):
  with jax.enable_x64(True):

    def value(rows, keys, num_blocks):
      each = function(rows, keys, num_blocks)
      return jnp.sum(each**2), each

    gradient = jax.value_and_grad(value, argnums=(0, 1), has_aux=True)
    compiled = [
      jax.jit(functools.partial(gradient, num_blocks=n))(_ROWS, _KEYS)
      for n in (1, 3)
    ]
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12),
    *compiled,
  )


def test_similarities_of_one_block_are_kept_at_a_time():
  """Read off the compiled program: 2,048 rows and 1,024 keys."""

  def temporaries(num_blocks):
    shapes = [jax.ShapeDtypeStruct((n, 4), jnp.float32) for n in (2048, 1024)]
    labels = jnp.ones((1024, 2), jnp.float32)

    def loss(rows, keys):
      return jnp.sum(
        losses.soft_nearest_neighbours(
          rows, keys, labels, temperature=0.1, num_blocks=num_blocks
        )
        ** 2
      )

    compiled = jax.jit(jax.grad(loss, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  array = 4 * 2048 * 1024
  assert temporaries(1) > array
  assert temporaries(16) < array / 4
