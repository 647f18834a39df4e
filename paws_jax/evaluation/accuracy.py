"""What went wrong where: classes that are taken for each other, by counts."""

from __future__ import annotations

import math

import numpy as np


def confusion_matrix(
  predicted: np.ndarray, labels: np.ndarray, *, num_classes: int
) -> np.ndarray:
  """Counts how often each class was taken for each.

  Args:
    predicted: [n] classes in [0, num_classes).
    labels: [n] the true ones.
    num_classes: K.

  Returns:
    int64 [K, K]: a row for each true class, a column for each predicted one.
  """
  counts = np.zeros((num_classes, num_classes), np.int64)
  np.add.at(counts, (np.asarray(labels), np.asarray(predicted)), 1)
  return counts


def per_class_accuracy(confusion: np.ndarray) -> np.ndarray:
  """Of each class's images the fraction that was recognized.

  Args:
    confusion: [K, K] counts, rows are true classes.

  Returns:
    float64 [K]; NaN for a class without an image.
  """
  counts = confusion.sum(axis=1)
  right = np.diag(confusion).astype(np.float64)
  return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)


# Two-sided 95 % of the normal distribution.
_Z = 1.959963984540054


def top_k_accuracy(probs: np.ndarray, labels: np.ndarray, k: int) -> float:
  """Fraction of rows whose label is among the k most probable classes.

  Args:
    probs: [n, K].
    labels: [n] integers in [0, K).
    k: with K < k every row counts as right.

  Returns:
    A fraction in [0, 1]. Of equally probable classes the lower number wins.
  """
  order = np.argsort(-probs, axis=-1, kind="stable")[:, :k]
  return float((order == np.asarray(labels)[:, None]).any(axis=-1).mean())


def confidence_interval(fraction: float, count: int) -> tuple[float, float]:
  """Wilson's 95 % interval of a fraction measured on `count` examples.

  It holds for small counts and near 0 and 1 (Wilson, 1927).
  """
  center = fraction + _Z**2 / (2 * count)
  half = _Z * math.sqrt(
    fraction * (1 - fraction) / count + _Z**2 / (4 * count**2)
  )
  scale = 1 + _Z**2 / count
  return max(0.0, (center - half) / scale), min(1.0, (center + half) / scale)
