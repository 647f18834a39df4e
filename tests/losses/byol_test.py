"""BYOL's loss: golden numbers of the public code, its range, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from tests import golden_ssl

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
FILES = ("base", "mc2", "edge_zero", "edge_tiny", "edge_same", "edge_opposite")


@X64
@pytest.mark.parametrize("name", FILES)
def test_loss_and_gradient_equal_the_reference(name, x64):
  arrays, config = golden_ssl.load(f"ssl/byol_loss_{name}")
  # With small crops the numbers are the sum over pairs, not twice their mean.
  pairs = config["num_pairs"] if name == "mc2" else 2
  with jax.enable_x64(x64):
    predictions, targets = golden_ssl.floats(
      arrays, ("predictions", "targets"), x64
    )

    def loss(predictions, targets):
      return losses.byol_loss(predictions, targets) * pairs / 2

    value, grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))(
      predictions, targets
    )
  golden_ssl.assert_near(
    {"loss": value, "grad_predictions": grads[0]}, arrays, x64
  )
  assert not np.any(grads[1])


@pytest.mark.parametrize("views", [2, 3, 5])
def test_opposite_views_have_the_largest_loss(views):
  targets = jnp.tile(jnp.array([[0.0, 2.0]]), (6, 1))
  predictions = jnp.tile(jnp.array([[0.0, -3.0]]), (3 * views, 1))
  np.testing.assert_allclose(losses.byol_loss(predictions, targets), 8.0)
  np.testing.assert_allclose(losses.byol_loss(-predictions, targets), 0.0)


@pytest.mark.parametrize(
  ("predictions", "targets"),
  [((3, 4), (6, 4)), ((8, 4), (6, 4)), ((6, 4), (3, 4)), ((6, 5), (6, 4))],
)
def test_inconsistent_shapes_are_refused(predictions, targets):
  with pytest.raises(ValueError, match=r"predictions .* targets"):
    losses.byol_loss(jnp.ones(predictions), jnp.ones(targets))
