"""Initializers and the activation that all encoders share."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def relu(x: jax.Array) -> jax.Array:
  """max(x, 0), any shape and dtype; the gradient at 0 is 0, NaN stays NaN.

  As a selection, which XLA's CPU backend computes once. It takes a maximum
  with a constant for cheap enough to be repeated, together with the BatchNorm
  before it, in every loop that reads it (docs/decisions.md).
  """
  return jnp.where(x <= 0, 0, x)


# N(0, 2 / fan_out), fan_out = kernel area x output channels (He et al.,
# "Delving Deep into Rectifiers", 2015, section 2.2).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
  """Uniform in ±1/sqrt(fan_in): PyTorch's default, for kernels and biases.

  For kernels it is the Kaiming uniform rule with a = sqrt(5). A bias cannot
  tell its fan_in from its shape, so it is an argument for both.
  """
  bound = 1 / math.sqrt(fan_in)

  def init(key: jax.Array, shape: Any, dtype: Any, **_: Any) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
