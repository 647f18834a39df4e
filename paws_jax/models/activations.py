"""Activation functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def relu(x: jax.Array) -> jax.Array:
  """max(x, 0), any shape and dtype; the gradient at 0 is 0, NaN stays NaN.

  As a selection, which XLA's CPU backend computes once. It takes a maximum
  with a constant for cheap enough to be repeated, together with the BatchNorm
  before it, in every loop that reads it (docs/decisions.md).
  """
  return jnp.where(x <= 0, 0, x)
