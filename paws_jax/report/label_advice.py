"""Labels to check, and images to label next."""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np

# Rows whose similarities to all others are computed at once.
_BLOCK = 256
# A gain that may be rounding.
_NOTHING = 1e-5


def doubtful(
  probabilities: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> np.ndarray:
  """Finds labelled images whose label the other labelled images contradict.

  Args:
    probabilities: float [n, K], the vote of the others for each image.
    labels: int [n], what each is labelled.
    counts: int [K], labelled images of each class. An image that is the only
      one of its class has nobody to vote for it: it is left out.

  Returns:
    int rows, the clearest first: by the probability of the class that won
    minus that of the label.
  """
  rows = np.arange(len(labels))
  winners = probabilities.argmax(axis=1)
  margin = probabilities[rows, winners] - probabilities[rows, labels]
  found = rows[(winners != labels) & (counts[labels] > 1)]
  return found[np.argsort(-margin[found], kind="stable")]


@dataclasses.dataclass(frozen=True, eq=False)
class Suggestions:
  """Images to label, in this order.

  Attributes:
    rows: int [m], of the images given; any first few are as good a choice
      for fewer labels.
    stands_for: int [m], images given, itself included, that resemble this
      one more than any labelled image and any other suggestion.
  """

  rows: np.ndarray
  stands_for: np.ndarray


def next_to_label(
  embeddings: np.ndarray,
  entropy: np.ndarray,
  novelty: np.ndarray,
  *,
  most: int,
) -> Suggestions:
  """Chooses images whose labels would help most with the undecided ones.

  A labelled image informs the images that resemble it. The sum, over all
  images, of entropy times the cosine similarity to the nearest labelled image
  is to become as large as possible: this asks for uncertain images, for many
  alike, and for none twice (facility location). Greedy choices reach at least
  1 - 1/e of the best (Nemhauser, Wolsey and Fisher, 1978); a gain only shrinks
  as images are chosen, so most need not be computed again (Minoux, 1978).

  Args:
    embeddings: float [n, D] of unlabelled images.
    entropy: float [n] of their votes, in nats.
    novelty: float [n], 1 - the cosine similarity to the nearest labelled image.
    most: suggestions; fewer when the others would bring nothing.

  Raises:
    ValueError: for another number of entropies or novelties.
  """
  if not len(embeddings) == len(entropy) == len(novelty):
    raise ValueError(
      f"{len(embeddings)} embeddings, {len(entropy)} entropies and "
      f"{len(novelty)} novelties: give one of each for each image."
    )
  points = _directions(embeddings)
  nearest = 1 - np.asarray(novelty, np.float32)
  owner = np.full(len(points), -1)
  chosen: list[int] = []
  gains = enumerate(_gains(points, entropy, nearest))
  heap = [(-gain, row) for row, gain in gains]
  heapq.heapify(heap)
  while heap and len(chosen) < most:
    row = heapq.heappop(heap)[1]
    similarity = points @ points[row]
    gain = float(entropy @ np.maximum(similarity - nearest, 0))
    if gain <= _NOTHING:
      continue
    if heap and gain < -heap[0][0]:
      heapq.heappush(heap, (-gain, row))
      continue
    owner[similarity > nearest] = len(chosen)
    nearest = np.maximum(nearest, similarity)
    chosen.append(row)
  stands_for = np.bincount(owner[owner >= 0], minlength=len(chosen))
  return Suggestions(np.asarray(chosen, int), stands_for)


def _directions(embeddings: np.ndarray) -> np.ndarray:
  """float32 [n, D] of length 1."""
  embeddings = np.asarray(embeddings, np.float32)
  norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
  return embeddings / np.maximum(norms, 1e-12)


def _gains(
  points: np.ndarray, entropy: np.ndarray, nearest: np.ndarray
) -> list[float]:
  """What labelling each image alone would bring."""
  gains: list[float] = []
  for i in range(0, len(points), _BLOCK):
    similarity = points[i : i + _BLOCK] @ points.T
    gains += (np.maximum(similarity - nearest[None, :], 0) @ entropy).tolist()
  return gains
