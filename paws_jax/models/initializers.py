"""Initial values of kernels and biases."""

from __future__ import annotations

import math
from typing import Any

import jax
from flax import linen as nn

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
