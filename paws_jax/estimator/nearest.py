"""The labelled images that are most similar to others."""

from __future__ import annotations

import numpy as np

from paws_jax import errors

# Similarities of one part: 128 MB.
_AT_ONCE = 2**25


def check_count(count: int, most: int) -> None:
  """Refuses a number of neighbors that there are not."""
  if not isinstance(count, (int, np.integer)) or not 1 <= count <= most:
    raise errors.InputError(
      f"n_neighbors is {count!r}: give a whole number from 1 to {most}, the "
      "number of labelled images."
    )


def find(
  queries: np.ndarray, supports: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the nearest supports by cosine similarity.

  Args:
    queries: float32 [n, D].
    supports: float32 [N, D].
    count: k, from 1 to N.

  Returns:
    Distances float32 [n, k] in [0, 2], increasing; indices int64 [n, k].
  """
  queries, supports = _unit(queries), _unit(supports).T
  size = max(1, _AT_ONCE // len(supports))
  parts = [
    _nearest(queries[first : first + size] @ supports, count)
    for first in range(0, len(queries), size)
  ]
  distances, indices = zip(*parts, strict=True)
  return np.concatenate(distances), np.concatenate(indices)


def _nearest(
  similarities: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
  # Equal ones in their order, as in the vote.
  order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
  nearest = np.take_along_axis(similarities, order, axis=1)
  # Rounding may take a support itself below 0.
  return np.maximum(1 - nearest, 0), order


def _unit(rows: np.ndarray) -> np.ndarray:
  lengths = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / np.maximum(lengths, np.finfo(np.float32).tiny)
