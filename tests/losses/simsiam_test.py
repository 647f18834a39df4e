"""SimSiam's loss: golden numbers of the public code, BYOL's loss, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from tests import golden_ssl

pytestmark = pytest.mark.unoptimized

X64 = pytest.mark.parametrize("x64", [True, False], ids=["x64", "float32"])
FILES = ("base", "edge_zero", "edge_tiny", "edge_same", "edge_opposite")


@X64
@pytest.mark.parametrize("name", FILES)
def test_loss_and_gradient_equal_the_reference(name, x64):
  arrays, _ = golden_ssl.load(f"ssl/simsiam_loss_{name}")
  with jax.enable_x64(x64):
    value, grads = jax.jit(
      jax.value_and_grad(losses.simsiam_loss, argnums=(0, 1))
    )(*golden_ssl.floats(arrays, ("predictions", "targets"), x64))
  golden_ssl.assert_near(
    {"loss": value, "grad_predictions": grads[0]}, arrays, x64
  )
  assert not np.any(grads[1])


def test_it_is_a_quarter_of_byol_less_one():
  predictions, targets = np.random.default_rng(0).normal(size=(2, 10, 5))
  np.testing.assert_allclose(
    losses.simsiam_loss(jnp.asarray(predictions), jnp.asarray(targets)),
    losses.byol_loss(jnp.asarray(predictions), jnp.asarray(targets)) / 4 - 1,
    rtol=1e-5,
  )


@pytest.mark.parametrize(
  ("predictions", "targets"),
  [((9, 4), (6, 4)), ((6, 4), (3, 4)), ((5, 4), (5, 4)), ((6, 5), (6, 4))],
)
def test_inconsistent_shapes_are_refused(predictions, targets):
  with pytest.raises(ValueError, match=r"predictions .* targets"):
    losses.simsiam_loss(jnp.ones(predictions), jnp.ones(targets))
