"""Digests of arrays, which reveal silent damage."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Words that the host takes at a time; they fit its caches.
_BLOCK = 1 << 16


def compute(tree: Any) -> Any:
  """Computes a 32-bit digest of the bits of every array.

  Every word of up to 32 bits is scrambled together with its position by a
  bijection, and the results are added modulo 2^32. So one changed word always
  changes the digest, and any other change (e.g. swapped words) does except in
  one of about 4 * 10^9 cases. The digest does not depend on the sharding. It is
  computed on the devices; on the host if all arrays are in its memory, where
  compiling would take longer.

  Args:
    tree: pytree of arrays of floats, integers or booleans.

  Returns:
    Pytree of uint32 scalars of the same structure.
  """
  if all(map(_in_host_memory, jax.tree.leaves(tree))):
    return jax.tree.map(_digest_on_host, tree)
  return _on_devices(tree)


def _in_host_memory(array: Any) -> bool:
  if not isinstance(array, jax.Array):
    return isinstance(array, np.ndarray)
  devices: list[Any] = list(array.sharding.device_set)
  # A mesh has devices of one kind.
  on_cpu = devices[0].platform == "cpu"
  return on_cpu and (array.is_fully_addressable or array.is_fully_replicated)


def _digest_on_host(array: Any) -> np.uint32:
  array = np.asarray(array)
  kind = np.dtype(f"uint{min(array.dtype.itemsize * 8, 32)}")
  words = np.ascontiguousarray(array).reshape(-1).view(kind)
  total = 0
  for start in range(0, len(words), _BLOCK):
    block = words[start : start + _BLOCK].astype(np.uint32)
    position = np.arange(start + 1, start + 1 + len(block)).astype(np.uint32)
    scrambled = _scramble(block ^ _scramble(position))
    total += int(scrambled.sum(dtype=np.uint64))
  return np.uint32(total & 0xFFFFFFFF)


@jax.jit
def _on_devices(tree: Any) -> Any:
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


def _scramble(words: Any) -> Any:
  """Applies a bijection: the finalizer of MurmurHash3 (Appleby, 2011).

  A weighted sum of the words is not enough: with x and -x swapped, words differ
  by 2^31, which an even difference of weights hides.
  """
  words = (words ^ (words >> 16)) * np.uint32(0x85EBCA6B)
  words = (words ^ (words >> 13)) * np.uint32(0xC2B2AE35)
  return words ^ (words >> 16)
