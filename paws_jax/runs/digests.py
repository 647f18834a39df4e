"""Digests of arrays on devices, which reveal silent damage."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


@jax.jit
def compute(tree: Any) -> Any:
  """Computes a 32-bit digest of the bits of every array.

  Every word of up to 32 bits is scrambled together with its position by a
  bijection, and the results are added modulo 2^32. So one changed word always
  changes the digest, and any other change (e.g. swapped words) does except in
  one of about 4 * 10^9 cases. The digest is computed on the devices, also for
  sharded arrays, and does not depend on the sharding.

  Args:
    tree: pytree of arrays of floats, integers or booleans.

  Returns:
    Pytree of uint32 scalars of the same structure.
  """
  return jax.tree.map(_digest, tree)


def _digest(array: jax.Array) -> jax.Array:
  if array.dtype == jnp.bool_:
    array = array.astype(jnp.uint8)
  bits = array.dtype.itemsize * 8
  words = jax.lax.bitcast_convert_type(
    array, jnp.uint32 if bits == 64 else jnp.dtype(f"uint{bits}")
  ).astype(jnp.uint32)
  position = jnp.zeros(words.shape, jnp.uint32)
  for axis, size in enumerate(words.shape):
    axis_index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    position = position * jnp.uint32(size & 0xFFFFFFFF) + axis_index
  return jnp.sum(_scramble(words ^ _scramble(position + 1)), dtype=jnp.uint32)


def _scramble(words: jax.Array) -> jax.Array:
  """Applies a bijection: the finalizer of MurmurHash3 (Appleby, 2011).

  A weighted sum of the words is not enough: with x and -x swapped, words differ
  by 2^31, which an even difference of weights hides.
  """
  words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
  return words ^ (words >> 16)
