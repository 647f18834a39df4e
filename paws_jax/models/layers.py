"""Initializers and the activation function of all encoders."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn


def relu(x: jax.Array) -> jax.Array:
  """Computes max(x, 0); the gradient at 0 is 0, and NaN stays NaN.

  XLA's CPU backend computes this selection once, but would repeat a maximum
  with a constant, together with the BatchNorm before it, in every loop that
  reads it (docs/decisions.md).
  """
  return jnp.where(x <= 0, 0, x)


# N(0, 2 / fan_out), fan_out = kernel area x output channels (He et al.,
# "Delving Deep into Rectifiers", 2015, section 2.2).
he_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# The same with fan_in: of depthwise filters the kernel area.
he_normal_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def fan_in_uniform(fan_in: int) -> nn.initializers.Initializer:
  """Returns a uniform initializer in ±1/sqrt(fan_in), PyTorch's default.

  For kernels it is the Kaiming uniform rule with a = sqrt(5). The shape of a
  bias does not determine its fan_in, so that it is an argument.
  """
  bound = 1 / math.sqrt(fan_in)

  def init(key: jax.Array, shape: Any, dtype: Any, **_: Any) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -bound, bound)

  return init
