"""The labelled images that are most similar to others."""

from __future__ import annotations

import numpy as np

from paws_jax import errors
from paws_jax.evaluation import neighbors


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
  cosines, numbers = neighbors.nearest(queries, supports, count)
  # Rounding may take a support itself below 0.
  return np.maximum(1 - cosines, 0), numbers.astype(np.int64)
