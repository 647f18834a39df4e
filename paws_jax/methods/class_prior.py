"""An estimate of how frequent each class is among the unlabelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax.methods import base

# Of the share that each class would have if all were equally frequent: no class
# is estimated to be rarer, as a prior of 0 could not be corrected.
_FLOOR = 0.25
# Images that are compared with the labelled ones at once.
_ROWS = 4096
# Parts of the labelled images that are held out in turn, where the features of
# all times the number of classes are at most so many numbers.
_FOLDS = 5
_MOST_NUMBERS = 10**8


@dataclasses.dataclass(frozen=True, eq=False)
class Estimate:
  """An estimated prior.

  Attributes:
    shares: float [K], with sum 1.
    by_labels: the same as a classifier of the labels alone has it.
    held_out_accuracy: of that classifier on labelled images that it has not
      learned from, mean over classes; NaN: not measured.
  """

  shares: np.ndarray
  by_labels: np.ndarray
  held_out_accuracy: float

  @property
  def change(self) -> float:
    """Distance of the shares by the labels and by the run's own predictions.

    In total variation, a lower bound on the share of images of which the
    predicted class differs.
    """
    # `shares` stands halfway between the two.
    return float(np.abs(self.shares - self.by_labels).sum())


def initial(facts: base.Facts) -> dict[str, Any]:
  """Returns the state of an estimate: uniform, [K] float32."""
  uniform = jnp.full(facts.num_classes, 1 / max(facts.num_classes, 1))
  return {
    "prior": uniform,
    "prior_by_labels": uniform,
    "prior_held_out_accuracy": jnp.full((), jnp.nan, jnp.float32),
  }


def read(extra: Any) -> Estimate | None:
  """Returns the estimate of a state's `extra`; None: it has none."""
  if not isinstance(extra, Mapping) or "prior_by_labels" not in extra:
    return None
  shares, by_labels, accuracy = jax.device_get(
    [extra[f"prior{n}"] for n in ("", "_by_labels", "_held_out_accuracy")]
  )
  return Estimate(shares, by_labels, float(accuracy))


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
  labels = facts.labels
  assert labels is not None
  counted: dict[str, Any] = {
    "num_classes": facts.num_classes,
    "include_labelled": facts.include_labelled,
  }
  if step == 0:
    features = embed(trunk=True)
    start = from_labels(features, labels, **counted)
    accuracy = held_out_accuracy(features, labels)
    found = {
      "prior": start,
      "prior_by_labels": start,
      "prior_held_out_accuracy": accuracy,
    }
  else:
    own = from_embeddings(embed(), labels, temperature=temperature, **counted)
    found = {"prior": (np.asarray(extra["prior_by_labels"]) + own) / 2}
  arrays = {name: jnp.asarray(x, jnp.float32) for name, x in found.items()}
  return {**extra, **arrays}


def from_labels(
  features: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  include_labelled: bool = True,
) -> np.ndarray:
  """Counts the classes that a logistic regression on the labels predicts.

  Args:
    features: [n, d] of all training images; NaN of images that have none.
    labels: int [n], -1 of images without a label.
    num_classes: K.
    include_labelled: whether a labelled image counts, as its label.

  Returns:
    Shares of the classes, float64 [K], with sum 1.
  """
  features, labels = _readable(features, labels)
  known = labels >= 0
  features = _scaled(features, known)
  predicted = _predict(features[known], labels[known], features)
  return _shares(predicted, labels, num_classes, include_labelled)


def held_out_accuracy(features: np.ndarray, labels: np.ndarray) -> float:
  """Measures the classifier of `from_labels` on labels that are left out.

  Args:
    features: as of `from_labels`.
    labels: as of `from_labels`.

  Returns:
    The mean over classes with at least two labelled images; NaN: there is none,
    or there are too many images for several fits.
  """
  features, labels = _readable(features, labels)
  known = labels >= 0
  features, labels = _scaled(features, known)[known], labels[known]
  classes = np.unique(labels)
  if features.size * len(classes) > _MOST_NUMBERS:
    return float("nan")
  # Of each class an image in each fold, as far as they reach.
  folds = np.empty(len(labels), int)
  for number in classes:
    places = np.flatnonzero(labels == number)
    folds[places] = np.arange(len(places)) % _FOLDS
  right = np.zeros(len(labels), bool)
  for fold in range(_FOLDS):
    out = folds == fold
    if out.any() and not out.all():
      found = _predict(features[~out], labels[~out], features[out])
      right[out] = found == labels[out]
  repeated = [n for n in classes if (labels == n).sum() > 1]
  if not repeated:
    return float("nan")
  return float(np.mean([right[labels == n].mean() for n in repeated]))


def _scaled(features: np.ndarray, known: np.ndarray) -> np.ndarray:
  """Scales features for the regression by those of labelled images."""
  # Of unit length, as all embeddings that are compared.
  norms = np.linalg.norm(features, axis=1, keepdims=True)
  features = features / np.maximum(norms, 1e-12)
  scale = np.std(features[known], axis=0).mean()
  return features / max(scale, 1e-12) / np.sqrt(features.shape[1])


def _predict(
  features: np.ndarray, labels: np.ndarray, queries: np.ndarray
) -> np.ndarray:
  """Predicts classes by a logistic regression."""
  from sklearn import linear_model

  if (labels == labels[0]).all():
    return np.full(len(queries), labels[0])
  model = linear_model.LogisticRegression(C=10.0, max_iter=1000)
  return model.fit(features, labels).predict(queries)


def from_embeddings(
  embeddings: np.ndarray,
  labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
  include_labelled: bool = True,
) -> np.ndarray:
  """Counts the classes that the soft vote of the labelled images predicts.

  Args:
    embeddings: [n, D] of all training images; NaN of images that have none.
    labels: int [n], -1 of images without a label.
    num_classes: K.
    temperature: of the vote.
    include_labelled: as of `from_labels`.

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
    # Else all votes of a distant image could be 0.
    cosines -= cosines.max(axis=1, keepdims=True)
    votes = np.exp(cosines / temperature) @ one_hot
    predicted.append(votes.argmax(axis=1))
  predictions = np.concatenate(predicted)
  return _shares(predictions, labels, num_classes, include_labelled)


def _readable(
  rows: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  there = np.isfinite(rows).all(axis=1)
  return rows[there], labels[there]


def _shares(
  predicted: np.ndarray,
  labels: np.ndarray,
  num_classes: int,
  include_labelled: bool,
) -> np.ndarray:
  classes = np.where(labels >= 0, labels, predicted)
  if not include_labelled:
    classes = classes[labels < 0]
  shares = np.bincount(classes, minlength=num_classes) / max(len(classes), 1)
  shares = np.maximum(shares, _FLOOR / num_classes)
  return shares / shares.sum()
