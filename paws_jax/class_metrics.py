"""What went wrong where: classes that are taken for each other, by counts."""

from __future__ import annotations

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
  """Of each class's images the fraction that was recognised.

  Args:
    confusion: [K, K] counts, rows are true classes.

  Returns:
    float64 [K]; NaN for a class without an image.
  """
  counts = confusion.sum(axis=1)
  right = np.diag(confusion).astype(np.float64)
  return np.where(counts > 0, right / np.maximum(counts, 1), np.nan)
