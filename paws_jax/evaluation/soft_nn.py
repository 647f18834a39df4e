"""Soft nearest-neighbor classification by labelled embeddings."""

from __future__ import annotations

import numpy as np

from paws_jax.evaluation import accuracy
from paws_jax.evaluation import chunked_vote


def soft_nn_probabilities(
  queries: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
  batch_size: int = 1024,
  chunk_size: int = chunked_vote.CHUNK_SIZE,
  leave_one_out: bool = False,
  copies: np.ndarray | None = None,
) -> np.ndarray:
  """Class probabilities by a vote of the supports.

  Args:
    queries: [n, D] embeddings.
    supports: [N, D] embeddings.
    support_labels: [N] integers in [0, num_classes).
    num_classes: K.
    temperature: τ > 0.
    batch_size: queries at once; changes nothing but memory and rounding.
    chunk_size: supports at once; also.
    leave_one_out: neither query i nor a copy of it votes on query i; queries
      are the supports.
    copies: int [N], number of the first support with the same contents; None:
      there are no copies.

  Returns:
    [n, K] on the host, float32 (float64 if the embeddings are, in x64).

  Raises:
    ValueError: for shapes that do not fit, none of either, labels outside the
      range, or embeddings that are not finite.
  """
  support_labels = np.asarray(support_labels)
  _check_labels("support_labels", support_labels, num_classes)
  if copies is None:
    copies = np.arange(len(supports))
  _check_arrays(queries, supports, support_labels, leave_one_out, copies)
  votes = chunked_vote.in_batches(
    queries,
    chunked_vote.cut(supports, support_labels, chunk_size, copies=copies),
    batch_size=batch_size,
    excluded=copies if leave_one_out else None,
    num_classes=num_classes,
    temperature=temperature,
  )
  return votes.probabilities


def soft_nn_accuracy(
  queries: np.ndarray,
  query_labels: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
  batch_size: int = 1024,
  leave_one_out: bool = False,
  copies: np.ndarray | None = None,
) -> dict[str, float]:
  """Top-1 and top-5 accuracy of soft nearest neighbors.

  Args:
    queries: [n, D] embeddings.
    query_labels: [n] integers in [0, num_classes).
    supports: [N, D] embeddings.
    support_labels: [N] integers in [0, num_classes).
    num_classes: K.
    temperature: τ > 0.
    batch_size: queries at once; changes nothing but memory.
    leave_one_out: see `soft_nn_probabilities`.
    copies: see `soft_nn_probabilities`.

  Returns:
    {"top1", "top5"}: fractions in [0, 1].

  Raises:
    ValueError: see `soft_nn_probabilities`; also for no queries, or labels that
      do not fit the queries.
  """
  query_labels = np.asarray(query_labels)
  if len(queries) != len(query_labels) or not len(queries):
    raise ValueError(
      f"{len(queries)} queries but {len(query_labels)} query_labels: give one "
      "label per query, and at least one."
    )
  _check_labels("query_labels", query_labels, num_classes)
  probs = soft_nn_probabilities(
    queries,
    supports,
    support_labels,
    num_classes=num_classes,
    temperature=temperature,
    batch_size=batch_size,
    leave_one_out=leave_one_out,
    copies=copies,
  )
  return {
    f"top{k}": accuracy.top_k_accuracy(probs, query_labels, k) for k in (1, 5)
  }


def _check_arrays(
  queries: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  leave_one_out: bool,
  copies: np.ndarray,
) -> None:
  if len(supports) != len(support_labels):
    raise ValueError(
      f"{len(supports)} supports but {len(support_labels)} support_labels."
    )
  for name, rows in (("queries", queries), ("supports", supports)):
    bad = int((~np.isfinite(rows)).any(axis=-1).sum())
    if bad:
      raise ValueError(
        f"{bad} of {len(rows)} {name} have embeddings that are not finite: the "
        "encoder has diverged or is of another recipe."
      )
  if not len(queries) or not len(supports):
    raise ValueError(
      f"{len(queries)} queries and {len(supports)} supports: a vote needs at "
      "least one of each."
    )
  if leave_one_out and (len(supports) < 2 or len(queries) != len(supports)):
    raise ValueError(
      f"leave_one_out needs queries that are the supports, at least 2; got "
      f"{len(queries)} queries and {len(supports)} supports."
    )
  if leave_one_out and len(np.unique(copies)) < 2:
    raise ValueError(
      f"leave_one_out needs 2 different supports, but all {len(supports)} are "
      "copies of one image."
    )


def _check_labels(name: str, labels: np.ndarray, num_classes: int) -> None:
  if len(labels) and not 0 <= labels.min() <= labels.max() < num_classes:
    raise ValueError(
      f"{name} lie in [{labels.min()}, {labels.max()}], outside [0, "
      f"{num_classes})."
    )
