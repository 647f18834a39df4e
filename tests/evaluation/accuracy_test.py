"""Accuracies, their intervals and the confusion matrix, counted by hand."""

import numpy as np
import pytest

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


def test_top_k_counts_the_label_among_the_k_most_probable():
  probs = np.array([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
  labels = np.array([2, 0, 0])
  assert accuracy.top_k_accuracy(probs, labels, 1) == pytest.approx(1 / 3)
  assert accuracy.top_k_accuracy(probs, labels, 2) == pytest.approx(2 / 3)
  assert accuracy.top_k_accuracy(probs, labels, 3) == 1


def test_of_equally_probable_classes_the_lower_number_wins():
  probs = np.full((4, 4), 0.25)
  assert accuracy.top_k_accuracy(probs, np.arange(4), 1) == 0.25
  assert accuracy.top_k_accuracy(probs[:1], np.array([0]), 1) == 1
  assert accuracy.top_k_accuracy(probs[:1], np.array([1]), 1) == 0
  assert accuracy.top_k_accuracy(probs[:1], np.array([1]), 2) == 1
  tie = np.array([[0.2, 0.4, 0.4]])
  assert accuracy.top_k_accuracy(tie, np.array([1]), 1) == 1
  assert accuracy.top_k_accuracy(tie, np.array([2]), 1) == 0


def test_with_five_classes_or_fewer_every_row_is_in_the_top_five():
  for num_classes in (2, 5):
    labels = np.arange(num_classes)
    probs = np.eye(num_classes)[::-1]
    assert accuracy.top_k_accuracy(probs, labels, 5) == 1
  probs = np.arange(6.0)[None, :]
  assert accuracy.top_k_accuracy(probs, np.array([0]), 5) == 0


@pytest.mark.parametrize(
  ("fraction", "count", "low", "high"),
  [
    # Newcombe, 1998, table I, method 3: Wilson's score without correction.
    (81 / 263, 263, 0.2553, 0.3662),
    (15 / 148, 148, 0.0624, 0.1605),
    (0 / 20, 20, 0.0, 0.1611),
    (1 / 29, 29, 0.0061, 0.1718),
    (20 / 20, 20, 0.8389, 1.0),
  ],
)
def test_intervals_are_wilsons(fraction, count, low, high):
  interval = accuracy.confidence_interval(fraction, count)
  assert interval == pytest.approx((low, high), abs=5e-5)
  assert 0 <= interval[0] <= fraction <= interval[1] <= 1
