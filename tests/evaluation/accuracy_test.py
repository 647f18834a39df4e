"""Confusion matrix and accuracy of every class, counted by hand."""

import numpy as np

from paws_jax.evaluation import accuracy

LABELS = np.array([0, 0, 0, 1, 1, 3])
PREDICTED = np.array([0, 0, 2, 1, 0, 0])


def test_rows_are_true_classes():
  confusion = accuracy.confusion_matrix(PREDICTED, LABELS, num_classes=4)
  assert confusion.tolist() == [
    [2, 0, 1, 0],
    [1, 1, 0, 0],
    [0, 0, 0, 0],
    [1, 0, 0, 0],
  ]


def test_a_class_without_images_has_no_accuracy():
  confusion = accuracy.confusion_matrix(PREDICTED, LABELS, num_classes=4)
  np.testing.assert_allclose(
    accuracy.per_class_accuracy(confusion), [2 / 3, 1 / 2, np.nan, 0]
  )
