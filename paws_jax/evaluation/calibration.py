"""Whether probabilities mean what they say.

The expected calibration error: images are put into bins by the probability of
their predicted class, and the mean probability of each bin is held against the
fraction that was right (Guo et al., 2017, arXiv 1706.04599, section 2).
"""

from __future__ import annotations

import dataclasses

import numpy as np

NUM_BINS = 15


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
  """Probabilities against what came true, in bins of equal width.

  Attributes:
    edges: [B + 1], from 0 to 1; bin b holds (edges[b], edges[b + 1]].
    counts: int [B], images of each bin.
    confidence: [B], mean probability of the predicted class; NaN in an empty
      bin.
    accuracy: [B], fraction that was right; also NaN.
    error: the expected calibration error, in [0, 1]: the mean of
      |accuracy − confidence| over the images.
  """

  edges: np.ndarray
  counts: np.ndarray
  confidence: np.ndarray
  accuracy: np.ndarray
  error: float


def calibrate(
  probabilities: np.ndarray, labels: np.ndarray, *, num_bins: int = NUM_BINS
) -> Calibration:
  """Measures how far probabilities are from frequencies.

  Args:
    probabilities: [n, K], n at least 1; rows sum to 1. The predicted class is
      the most probable one, of equals the one with the lower number.
    labels: [n] classes in [0, K).
    num_bins: B.
  """
  rows = np.asarray(probabilities, np.float64)
  confidence = rows.max(axis=-1)
  right = rows.argmax(axis=-1) == np.asarray(labels)
  edges = np.linspace(0, 1, num_bins + 1)
  # Rounding may lift a probability above 1.
  places = np.clip(np.ceil(confidence * num_bins) - 1, 0, num_bins - 1)
  places = places.astype(int)
  counts = np.bincount(places, minlength=num_bins)

  def means(values: np.ndarray) -> np.ndarray:
    sums = np.bincount(places, weights=values, minlength=num_bins)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)

  mean_confidence, accuracy = means(confidence), means(right)
  gaps = np.nan_to_num(np.abs(accuracy - mean_confidence))
  return Calibration(
    edges=edges,
    counts=counts,
    confidence=mean_confidence,
    accuracy=accuracy,
    error=float(gaps @ counts / counts.sum()),
  )
