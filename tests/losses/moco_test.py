"""MoCo's loss: golden numbers of the public code, a closed form, refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from tests import golden_ssl

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
FILES = ("k16_t02", "k64_t007", "b1", "edge_zero", "edge_aligned")


@X64
@pytest.mark.parametrize("name", FILES)
def test_loss_and_gradient_equal_the_reference(name, x64):
  arrays, config = golden_ssl.load(f"ssl/moco_loss_{name}")
  with jax.enable_x64(x64):
    queries, keys, queue = golden_ssl.floats(
      arrays, ("queries", "keys", "queue"), x64
    )
    loss = functools.partial(
      losses.moco_loss, temperature=config["temperature"]
    )
    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(
      queries, keys, queue
    )
  golden_ssl.assert_near({"loss": value, "grad_queries": grads[0]}, arrays, x64)
  assert not np.any(grads[1])
  assert not np.any(grads[2])


@pytest.mark.parametrize("t", [0, 1, 2])
def test_loss_with_a_moving_queue_equals_the_reference(t):
  arrays, config = golden_ssl.load("ssl/moco_queue")
  queue = arrays["queue0"] if t == 0 else arrays[f"queue.{t - 1}_f64"]
  with jax.enable_x64(True):
    value = losses.moco_loss(
      jnp.asarray(arrays[f"queries.{t}"], float),
      jnp.asarray(arrays[f"keys.{t}"], float),
      jnp.asarray(queue, float),
      temperature=config["temperature"],
    )
  golden_ssl.assert_near({f"loss.{t}": value}, arrays, True)


def test_equal_rows_in_the_queue_give_the_closed_form():
  query, key, row = np.eye(3)[:, None]
  query = (query + key + 2 * row) / np.sqrt(6)
  value = losses.moco_loss(
    jnp.asarray(query),
    jnp.asarray(key),
    jnp.repeat(jnp.asarray(row), 7, axis=0),
    temperature=0.5,
  )
  difference = (query @ row.T - query @ key.T).item()
  np.testing.assert_allclose(
    value, np.log1p(7 * np.exp(difference / 0.5)), rtol=1e-5
  )


@pytest.mark.parametrize(
  ("keys", "queue", "message"),
  [
    ((3, 4), (8, 4), "queries and keys"),
    ((2, 4), (8, 5), "queries and queue"),
    ((2, 4), (8,), "queries and queue"),
  ],
)
def test_inconsistent_shapes_are_refused(keys, queue, message):
  with pytest.raises(ValueError, match=message):
    losses.moco_loss(
      jnp.ones((2, 4)), jnp.ones(keys), jnp.ones(queue), temperature=0.2
    )
