"""Labelled images with equal contents.

Where images judge each other (leave-one-out, folds, a hold-out), copies must
stay on one side: an image that is judged by its copy is always right.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
from collections.abc import Sequence

import numpy as np

from paws_jax.data.sources import catalog
from paws_jax.parallel import cpu_devices


def of_files(images: catalog.Reader, rows: np.ndarray) -> np.ndarray:
  """Finds encoded images with equal bytes; see `of_arrays`.

  Only images whose sizes are equal are read. One that cannot be read is no
  copy.

  Args:
    images: the encoded images.
    rows: int [n], which of them.
  """
  numbers = [int(row) for row in rows]
  with concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
    sizes = list(pool.map(lambda row: _size(images, row), numbers))
    known, counts = np.unique(sizes, return_counts=True)
    repeated = set(known[counts > 1].tolist()) - {-1}
    places = [i for i, size in enumerate(sizes) if size in repeated]
    digests = list(pool.map(lambda i: _digest(images, numbers[i]), places))
  contents: list[bytes | None] = [None] * len(numbers)
  for place, digest in zip(places, digests, strict=True):
    contents[place] = digest
  return _first_places(contents)


def of_arrays(images: np.ndarray) -> np.ndarray:
  """Finds images with equal pixels.

  Args:
    images: [n, H, W, Ch].

  Returns:
    int64 [n]: the place of the first image with the same contents, which is an
    image's own place where there is no copy before it.
  """
  return _first_places(
    [hashlib.blake2b(np.ascontiguousarray(x).data).digest() for x in images]
  )


def file_digests(images: catalog.Reader, rows: np.ndarray) -> list[bytes]:
  """Hashes encoded images, 16 bytes each; empty: it cannot be read."""
  numbers = [int(row) for row in rows]
  with concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
    digests = pool.map(lambda row: _digest(images, row), numbers)
    return [(digest or b"")[:16] for digest in digests]


def array_digests(images: np.ndarray, rows: np.ndarray) -> list[bytes]:
  """Hashes images [n, H, W, Ch], 16 bytes each."""
  return [
    hashlib.blake2b(np.ascontiguousarray(images[row]).data).digest()[:16]
    for row in rows
  ]


def among(copies: np.ndarray, places: np.ndarray) -> np.ndarray:
  """Returns the copies among some of the images.

  Args:
    copies: int [n], as of `of_arrays`.
    places: int [m] or bool [n], those that are left, in increasing order.

  Returns:
    int64 [m], places among those that are left.
  """
  return _first_places(copies[places].tolist())


def _first_places(contents: Sequence[object]) -> np.ndarray:
  """Returns the first place of each content; None is equal to nothing."""
  first: dict[object, int] = {}
  return np.asarray(
    [
      place if content is None else first.setdefault(content, place)
      for place, content in enumerate(contents)
    ],
    np.int64,
  )


def _size(images: catalog.Reader, row: int) -> int:
  """Returns the bytes of an image; -1 if it cannot be read."""
  try:
    return images.size(row)
  except (OSError, ValueError):
    return -1


def _digest(images: catalog.Reader, row: int) -> bytes | None:
  """Returns a hash of an image; None if it cannot be read."""
  try:
    return hashlib.blake2b(images.read(row)).digest()
  except (OSError, ValueError):
    return None
