"""An estimate of how frequent each class is among the unlabelled images."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from paws_jax.methods import base

# Of the share that each class would have if all were equally frequent: no class
# is estimated to be rarer, as a prior of 0 could not be corrected.
_FLOOR = 0.25
# Labelled images that vote on others at once.
_ROWS = 4096


def initial(facts: base.Facts) -> dict[str, Any]:
  """Returns the state of an estimate, [K] float32 each: uniform."""
  uniform = jnp.full(facts.num_classes, 1 / max(facts.num_classes, 1))
  return {"prior": uniform, "prior_by_labels": uniform}


def estimate(
  extra: Mapping[str, Any],
  embed: Callable[..., np.ndarray],
  *,
  facts: base.Facts,
  temperature: float,
  step: int,
) -> dict[str, Any]:
  """Estimates the prior between two epochs.

  Before the first step it is that of the labels alone, and then the mean of
  that and of what the run predicts: predictions alone would confirm themselves.

  Args:
    extra: with the state of `initial`.
    embed: of `Method.on_epoch_end`.
    facts: labels and classes.
    temperature: of the vote.
    step: steps taken.

  Returns:
    `extra` with the new estimate.
  """
  labels, num_classes = facts.labels, facts.num_classes
  assert labels is not None
  if step == 0:
    start = from_labels(embed(trunk=True), labels, num_classes=num_classes)
    prior = start
  else:
    start = np.asarray(extra["prior_by_labels"])
    own = from_embeddings(
      embed(), labels, num_classes=num_classes, temperature=temperature
    )
    prior = (start + own) / 2
  return {
    **extra,
    "prior": jnp.asarray(prior, jnp.float32),
    "prior_by_labels": jnp.asarray(start, jnp.float32),
  }


def from_labels(
  features: np.ndarray, labels: np.ndarray, *, num_classes: int
) -> np.ndarray:
  """Counts the classes that a logistic regression on the labels predicts.

  Args:
    features: [n, d] of all training images; NaN of images that have none.
    labels: int [n], -1 of images without a label.
    num_classes: K.

  Returns:
    Shares of the classes among all images, float64 [K], with sum 1; a labelled
    image counts as its label.
  """
  from sklearn import linear_model

  features, labels = _readable(features, labels)
  known = labels >= 0
  # Of unit length, as all embeddings that are compared.
  norms = np.linalg.norm(features, axis=1, keepdims=True)
  features = features / np.maximum(norms, 1e-12)
  scale = np.std(features[known], axis=0).mean()
  features = features / max(scale, 1e-12) / np.sqrt(features.shape[1])
  model = linear_model.LogisticRegression(C=10.0, max_iter=1000)
  model.fit(features[known], labels[known])
  return _shares(model.predict(features), labels, num_classes)


def from_embeddings(
  embeddings: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
) -> np.ndarray:
  """Counts the classes that the soft vote of the labelled images predicts.

  Args:
    embeddings: [n, D] of all training images; NaN of images that have none.
    labels: int [n], -1 of images without a label.
    num_classes: K.
    temperature: of the vote.

  Returns:
    As of `from_labels`.
  """
  embeddings, labels = _readable(embeddings, labels)
  norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
  embeddings = embeddings / np.maximum(norms, 1e-12)
  known = labels >= 0
  one_hot = np.eye(num_classes, dtype=np.float32)[labels[known]]
  # Classes with more labels have no more votes.
  one_hot /= np.maximum(one_hot.sum(axis=0, keepdims=True), 1)
  predicted = []
  for first in range(0, len(embeddings), _ROWS):
    cosines = embeddings[first : first + _ROWS] @ embeddings[known].T
    votes = np.exp((cosines - 1) / temperature) @ one_hot
    predicted.append(votes.argmax(axis=1))
  return _shares(np.concatenate(predicted), labels, num_classes)


def _readable(
  rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  there = np.isfinite(rows).all(axis=1)
  return rows[there], labels[there]


def _shares(
  predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
  classes = np.where(labels >= 0, labels, predicted)
  shares = np.bincount(classes, minlength=num_classes) / len(classes)
  shares = np.maximum(shares, _FLOOR / num_classes)
  return shares / shares.sum()
