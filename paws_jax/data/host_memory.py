"""Canvases that stay in the host's memory until a chunk is cut.

A program moves runs of rows from there only where their layout suits: libtpu
takes 32-bit words in rows of 128, and copies all canvases to the device for
anything else. The bytes of a word are pixels of the four quarters of an image,
one above the other, so that a device need not shuffle neighbours.
"""

from __future__ import annotations

from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax.data import batch
from paws_jax.parallel import cpu_devices
from paws_jax.parallel import mesh as mesh_lib

# Memory from which devices copy by themselves, as JAX calls it.
KIND = "pinned_host"
_WORDS = 128
_BITS = (0, 8, 16, 24)


def packed_shape(image_shape: tuple[int, ...]) -> tuple[int, int]:
  """Returns (rows, words of a row) of an image [H, W, C] of bytes."""
  return int(np.prod(image_shape)) // (4 * _WORDS), _WORDS


def pack(images: np.ndarray) -> np.ndarray:
  """Returns images as words.

  Args:
    images: [n, S, S, 3] uint8; S a multiple of 32.

  Returns:
    [n, rows, 128] int32, the lowest byte of a word from the first quarter.
  """
  words = np.empty((len(images), *packed_shape(images.shape[1:])), np.uint32)

  def fill(k: int) -> None:
    quarters = images[k].reshape(len(_BITS), *words.shape[1:])
    words[k] = quarters[0]
    for bits, quarter in zip(_BITS[1:], quarters[1:], strict=True):
      words[k] |= quarter.astype(np.uint32) << bits

  with futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
    list(pool.map(fill, range(len(images))))
  return words.view(np.int32)


def place(canvases: batch.Canvases, mesh: jax.sharding.Mesh) -> batch.Canvases:
  """Makes global arrays of this process's rows, images in the host's memory.

  Args:
    canvases: m rows of NumPy, in the order of `mesh.local_rows`; images as of
      `pack`.
    mesh: all devices.

  Returns:
    Arrays of all processes' rows, spread over the mesh; images as words.
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
  side = round((words[0].size * len(_BITS) / 3) ** 0.5)
  words = words.reshape(len(words), 1, side // len(_BITS), 3 * side)
  quarters = [((words >> bits) & 255).astype(jnp.uint8) for bits in _BITS]
  return jnp.concatenate(quarters, axis=1).reshape(-1, side, side, 3)


def is_packed(images: jax.Array) -> bool:
  """Whether these are words."""
  return images.dtype == jnp.int32
