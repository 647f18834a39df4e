"""The nearest labelled images, and the class of most of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from paws_jax.evaluation import chunked_vote

# Similarities of a block of queries are turned into ranks on the host.
_BLOCK = 4096


def nearest(
  queries: np.ndarray,
  supports: np.ndarray,
  k: int,
  *,
  excluded: np.ndarray | None = None,
  copies: np.ndarray | None = None,
  batch_size: int = 1024,
  chunk_size: int = chunked_vote.CHUNK_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the k most similar supports of each query, by cosine.

  Args:
    queries: [n, D] embeddings.
    supports: [N, D] embeddings.
    k: from 1 to N; with `excluded`, to the number of those that are left.
    excluded: int [n], number of the support that is none of a query's, nor are
      its copies.
    copies: int [N], number of the first support with the same contents; None:
      there are no copies.
    batch_size: queries at once; changes nothing but memory and rounding.
    chunk_size: supports at once; also.

  Returns:
    (cosines [n, k], numbers of the supports int32 [n, k]), the most similar
    first; of equal ones the support that comes first.

  Raises:
    ValueError: for a k that the supports do not have.
  """
  votes = _votes(
    queries,
    supports,
    k,
    batch_size,
    chunk_size,
    excluded=excluded,
    copies=copies,
  )
  return votes.cosines, votes.numbers


def voters(
  queries: np.ndarray,
  supports: np.ndarray,
  k: int,
  *,
  temperature: float,
  excluded: np.ndarray | None = None,
  copies: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the k supports with the greatest shares in the vote on each query.

  Args:
    queries: [n, D] embeddings.
    supports: [N, D] embeddings.
    k: from 1 to N; with `excluded`, to the number of those that vote.
    temperature: τ > 0 of the vote.
    excluded: int [n], number of the support that does not vote on a query, nor
      do its copies.
    copies: int [N], number of the first support with the same contents; None:
      there are no copies.

  Returns:
    (numbers of the supports int32 [n, k], shares [n, k]), the greatest first.

  Raises:
    ValueError: for a k that the supports do not have.
  """
  votes = _votes(
    queries,
    supports,
    k,
    temperature=temperature,
    excluded=excluded,
    copies=copies,
  )
  return votes.numbers, votes.shares


def _votes(
  queries: np.ndarray,
  supports: np.ndarray,
  k: int,
  batch_size: int = 1024,
  chunk_size: int = chunked_vote.CHUNK_SIZE,
  copies: np.ndarray | None = None,
  **settings: Any,
) -> chunked_vote.Votes[np.ndarray]:
  if not 1 <= k <= len(supports):
    raise ValueError(
      f"k is {k} but there are {len(supports)} supports: give a k from 1 to "
      "their number."
    )
  labels = np.zeros(len(supports), np.int32)
  chunks = chunked_vote.cut(supports, labels, chunk_size, copies=copies)
  return chunked_vote.in_batches(
    queries, chunks, batch_size=batch_size, k=k, **settings
  )


def majority(
  cosines: np.ndarray,
  neighbor_labels: np.ndarray,
  *,
  num_classes: int,
  most: int = 5,
) -> np.ndarray:
  """Ranks the classes by how many of the k nearest supports have them.

  Of classes with as many neighbors the one with the higher sum of cosines
  wins; of those without any, which come last, the lower number.

  Args:
    cosines: [n, k] of the neighbors.
    neighbor_labels: [n, k] integers in [0, num_classes).
    num_classes: K.
    most: classes to give.

  Returns:
    int [n, min(most, K)], the best class first.
  """
  ranks = []
  k = cosines.shape[1]
  for first in range(0, len(cosines), _BLOCK):
    labels = neighbor_labels[first : first + _BLOCK]
    rows = np.arange(len(labels))[:, None]
    scores = np.zeros((len(labels), num_classes))
    # A neighbor counts 1; a cosine, from -1 to 1, adds less than 1 / 2k, so
    # that all of a class's together never make up for a neighbor.
    np.add.at(
      scores,
      (rows, labels),
      1 + cosines[first : first + _BLOCK].astype(np.float64) / (4 * k),
    )
    order = np.argsort(-scores, axis=-1, kind="stable")
    ranks.append(order[:, :most])
  return np.concatenate(ranks)
