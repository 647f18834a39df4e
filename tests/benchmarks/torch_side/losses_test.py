"""Losses of the PyTorch peer against ours."""

import jax
import numpy as np
import pytest

from paws_jax import losses

torch = pytest.importorskip("torch", reason="compares with PyTorch")
# Imports PyTorch itself.
torch_losses = pytest.importorskip("benchmarks.torch_side.losses")


def test_suncet_has_the_same_value_and_gradient():
  rng = np.random.default_rng(0)
  z = rng.standard_normal((6, 5), np.float32)
  rows = (0.9 * np.eye(3, dtype=np.float32) + 0.1 / 3).repeat(2, 0)
  expected, gradient = jax.jit(
    jax.value_and_grad(lambda z: losses.suncet_loss(z, rows, temperature=0.1))
  )(z)
  theirs = torch.tensor(z, requires_grad=True)
  found = torch_losses.suncet_loss(
    theirs, torch.from_numpy(rows), temperature=0.1
  )
  found.backward()
  np.testing.assert_allclose(found.item(), expected, rtol=1e-5)
  np.testing.assert_allclose(theirs.grad.numpy(), gradient, rtol=1e-4)
