"""Canvases that stay in the host's memory until a chunk is cut.

A program moves runs of rows from there only where their layout suits: libtpu
takes 32-bit words in rows of 128, and copies all canvases to the device for
anything else.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax.data import batch
from paws_jax.parallel import mesh as mesh_lib

# Memory from which devices copy by themselves, as JAX calls it.
KIND = "pinned_host"
_WORDS = 128
# Sides of canvases of three channels whose bytes fill such rows.
SIDES = 32


def packed_shape(image_shape: tuple[int, ...]) -> tuple[int, int]:
  """Returns rows and words of an image of this shape."""
  return int(np.prod(image_shape)) // (4 * _WORDS), _WORDS


def pack(images: np.ndarray) -> np.ndarray:
  """Returns the bytes of images as words, without a copy.

  Args:
    images: [n, S, S, 3] uint8, contiguous; S a multiple of `SIDES`.

  Returns:
    [n, rows, 128] int32, the first of four bytes being the lowest.
  """
  words = images.reshape(len(images), -1).view("<i4")
  return words.reshape(len(images), *packed_shape(images.shape[1:]))


def place(canvases: batch.Canvases, mesh: jax.sharding.Mesh) -> batch.Canvases:
  """Makes global arrays of this process's rows, images in the host's memory.

  Args:
    canvases: arrays of NumPy, in the order of `mesh.local_rows`.
    mesh: all devices.
  """
  images, sizes, ids = map(np.asarray, canvases)
  return batch.Canvases(
    image=mesh_lib.from_local_rows(pack(images), mesh, memory=KIND),
    size=mesh_lib.from_local_rows(sizes, mesh),
    id=mesh_lib.from_local_rows(ids, mesh),
  )


def unpack(words: jax.Array) -> jax.Array:
  """Moves images to the device; traced.

  Args:
    words: of `pack`, in the host's memory or the device's.

  Returns:
    [n, S, S, 3] uint8.
  """
  words = jax.device_put(words, jax.memory.Space.Device)
  side = round((words[0].size * 4 / 3) ** 0.5)
  pixels = jax.lax.bitcast_convert_type(words, jnp.uint8)
  return pixels.reshape(len(words), side, side, 3)


def is_packed(images: jax.Array) -> bool:
  """Whether these are words."""
  return images.dtype == jnp.int32
