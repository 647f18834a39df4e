"""Features of the views of images, kept on disk, each with a check sum.

DIRECTORY/NAME.npy          float16 [n, V, d], mapped into memory
DIRECTORY/NAME.digests.npy  bytes [n]: a hash of each image
DIRECTORY/NAME.sums.npy     uint64 [n]: check sum of its features; 0: not there

What another run of the same key has computed of an image is used, wherever the
image stands now. Features whose check sum is wrong are computed again.
"""

from __future__ import annotations

import errno
import os
import pathlib
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

_THERE = 1 << 32
# A length for all: `Dataset.digests` has such hashes.
DIGEST_BYTES = 16
# File systems that cannot take space in advance.
_UNSUPPORTED = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)


class FeatureFile:
  """Features of n images that are there in part.

  Attributes:
    features: float16 [n, V, d], mapped into memory.
    missing: int [m], images whose features are not there yet, or damaged.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    name: str,
    digests: Sequence[bytes],
    *,
    num_views: int,
    num_features: int,
  ):
    """Opens the file, or makes it from what an earlier one has.

    Args:
      directory: made if it does not exist; one for all that the features
        depend on but the images.
      name: of the view spec.
      digests: of the images, in their order.
      num_views: V.
      num_features: d.

    Raises:
      OSError: it cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    self._paths = [
      directory / f"{name}{kind}.npy" for kind in ("", ".digests", ".sums")
    ]
    wanted = np.asarray(list(digests), f"S{DIGEST_BYTES}")
    shape = len(wanted), num_views, num_features
    before = _open(self._paths, shape[1:])
    if before is not None and np.array_equal(before[1], wanted):
      self.features, _, self._sums = before
    else:
      self.features, self._sums = _make(self._paths, shape, wanted, before)
    sums = [_check_sum(row) for row in self.features]
    self.missing = np.flatnonzero(self._sums != np.asarray(sums, np.uint64))

  def write(self, rows: np.ndarray, features: np.ndarray) -> None:
    """Stores features [m, V, d] of some images, and then their check sums."""
    self.features[rows] = features
    self.features.flush()
    self._sums[rows] = [_check_sum(self.features[row]) for row in rows]
    self._sums.flush()


def num_bytes(num_images: int, num_views: int, num_features: int) -> int:
  """Returns the disk space of a file."""
  return num_images * (num_views * num_features * 2 + DIGEST_BYTES + 8)


def _check_sum(row: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(row).data) | _THERE


def _open(
  paths: Sequence[pathlib.Path], shape: tuple[int, int]
) -> tuple[np.memmap, np.ndarray, np.memmap] | None:
  """Opens the three files; None: they are not there, or damaged."""
  try:
    features, digests, sums = (
      np.load(path, mmap_mode="r+", allow_pickle=False) for path in paths
    )
  except (OSError, ValueError):
    return None
  if (
    (features.dtype, sums.dtype) != (np.float16, np.uint64)
    or features.shape != (len(digests), *shape)
    or sums.shape != digests.shape
    or digests.dtype != f"S{DIGEST_BYTES}"
  ):
    return None
  return features, np.array(digests), sums


def _make(
  paths: Sequence[pathlib.Path],
  shape: tuple[int, int, int],
  digests: np.ndarray,
  before: tuple[np.memmap, np.ndarray, np.memmap] | None,
) -> tuple[np.memmap, np.memmap]:
  """Makes the files anew, with the features of images that they had."""
  parts = [path.with_suffix(".part") for path in paths]
  try:
    features = _new_map(parts[0], np.float16, shape)
    sums = _new_map(parts[2], np.uint64, shape[:1])
    with open(parts[1], "wb") as file:
      np.save(file, digests)
  except OSError:
    # The space of those that were made, on a disk that is full.
    for part in parts:
      part.unlink(missing_ok=True)
    raise
  if before is not None:
    places = {digest: place for place, digest in enumerate(before[1])}
    for row, digest in enumerate(digests):
      if digest and digest in places:
        features[row] = before[0][places[digest]]
        sums[row] = before[2][places[digest]]
  features.flush()
  sums.flush()
  # Without digests the others are not used: they are of one call.
  paths[1].unlink(missing_ok=True)
  for place in (0, 2, 1):
    parts[place].replace(paths[place])
  return features, sums


def _new_map(
  path: pathlib.Path, dtype: Any, shape: tuple[int, ...]
) -> np.memmap:
  """Makes an array of zeros in a file, and takes its space on the disk.

  Otherwise a full disk would end the process at a later write to the array.
  """
  try:
    array = npy_format.open_memmap(path, "w+", dtype, shape)
    _allocate(path)
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error
  return array


def _allocate(path: pathlib.Path) -> None:
  if not hasattr(os, "posix_fallocate"):
    return
  with open(path, "r+b") as file:
    try:
      os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    except OSError as error:
      if error.errno not in _UNSUPPORTED:
        raise
