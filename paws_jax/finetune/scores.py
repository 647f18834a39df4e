"""Held out images classified, and the best of the epochs so scored.

Accuracy decides; where it is equal, as it often is on few images, the answers
that were likelier.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import errors
from paws_jax.data import dataset
from paws_jax.distributed import agree
from paws_jax.evaluation import accuracy
from paws_jax.finetune import holdout as holdout_lib
from paws_jax.finetune import protocols
from paws_jax.training import state as state_lib

# Probabilities below this count as this much.
_SMALLEST = 1e-12

# {"top1": a fraction, "cross_entropy": in nats, "num_images": that could be
# read} of the held out images.
Score = dict[str, float]
Scorer = Callable[[Any, Any], Score]


def better(score: Score, than: Score | None) -> bool:
  """Whether a score is higher; of equal accuracies the likelier answers win."""
  if than is None:
    return True
  return (score["top1"], -score["cross_entropy"]) > (
    than["top1"],
    -than["cross_entropy"],
  )


def scorer(
  protocol: protocols.LinearHead | protocols.Suncet,
  parts: holdout_lib.HoldOut,
) -> Scorer | None:
  """A function of (params, batch_stats); None without a hold-out."""
  scored = parts.scored
  if scored is None:
    return None

  def score(params: Any, batch_stats: Any) -> Score:
    probs, labels = classify(protocol, params, batch_stats, scored, parts.fit)
    chosen = np.take_along_axis(probs, labels[:, None], axis=-1)
    return {
      "top1": accuracy.top_k_accuracy(probs, labels, 1),
      "cross_entropy": float(-np.log(np.maximum(chosen, _SMALLEST)).mean()),
      "num_images": len(labels),
    }

  return score


def classify(
  protocol: protocols.LinearHead | protocols.Suncet,
  params: Any,
  batch_stats: Any,
  queries: dataset.LabelledImages,
  voters: dataset.LabelledImages,
) -> tuple[np.ndarray, np.ndarray]:
  """Probabilities [n, K] and labels [n] of the images that can be read.

  Args:
    protocol: how images are classified.
    params: as the protocol trains them.
    batch_stats: batch statistics.
    queries: images to classify.
    voters: labelled images, for a protocol in which they vote.

  Raises:
    errors.NonFiniteError: when embeddings or probabilities are not finite.
  """
  rows, labels = _embed(protocol, params, batch_stats, queries)
  supports = support_labels = None
  if protocol.votes:
    supports, support_labels = _embed(protocol, params, batch_stats, voters)
  probs = protocol.probabilities(params, rows, supports, support_labels)
  _check_finite("probabilities", probs)
  return probs, labels


def _check_finite(name: str, rows: np.ndarray) -> None:
  bad = int((~np.isfinite(rows)).any(axis=-1).sum())
  if bad:
    raise errors.NonFiniteError(
      f"the {name} of {bad} of {len(rows)} images are not finite"
    )


def _embed(
  protocol: protocols.LinearHead | protocols.Suncet,
  params: Any,
  batch_stats: Any,
  part: dataset.LabelledImages,
) -> tuple[np.ndarray, np.ndarray]:
  rows = protocol.embed(params, batch_stats, part.images)
  if hasattr(part.images, "share_unreadable"):
    # Each process has read its own images only.
    part.images.share_unreadable(agree.gather)
  readable = part.readable
  rows, labels = rows[readable], part.labels[readable]
  _check_finite("embeddings", rows)
  return rows, labels


class Scores:
  """The scores of epochs, and the weights of the best one.

  Attributes:
    history: of all epochs.
    best: the best of them; None: nothing is scored yet.
    epoch: its number, from 1; 0: nothing yet.
    kept: {"params", "batch_stats"} after it; None: nothing yet.
  """

  def __init__(self, score: Scorer | None, steps_per_epoch: int):
    """Starts empty; without `score` it stays so."""
    self._score = score
    self._steps_per_epoch = steps_per_epoch
    self.history: list[Score] = []
    self.best: Score | None = None
    self.epoch = 0
    self.kept: dict[str, Any] | None = None

  def add(self, state: state_lib.TrainState, step: int) -> None:
    """Scores the state after an epoch."""
    if self._score is None:
      return
    score = self._score(state.params, state.batch_stats)
    self.history.append(score)
    if better(score, self.best):
      self.best, self.epoch = score, step // self._steps_per_epoch
      # The next step takes the state's memory.
      self.kept = copy(
        {"params": state.params, "batch_stats": state.batch_stats}
      )


@jax.jit
def copy(tree: Any) -> Any:
  """Arrays in memory of their own."""
  return jax.tree.map(jnp.copy, tree)
