"""Doubtful labels, and what to label next, on made-up embeddings."""

import itertools

import numpy as np
import pytest

from paws_jax.report import label_advice


def unit(rows):
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def novelty(points, supports):
  return 1 - (unit(points) @ unit(supports).T).max(axis=1)


def test_doubtful_are_sorted_by_how_clearly_the_others_disagree():
  probabilities = np.array(
    [[0.9, 0.1], [0.4, 0.6], [0.95, 0.05], [0.2, 0.8], [0.3, 0.7]]
  )
  labels = np.array([0, 0, 1, 1, 0])
  counts = np.array([3, 2])
  rows = label_advice.doubtful(probabilities, labels, counts)
  np.testing.assert_array_equal(rows, [2, 4, 1])


def test_the_only_image_of_its_class_is_not_doubted():
  probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
  labels = np.array([1, 0])
  rows = label_advice.doubtful(probabilities, labels, np.array([2, 1]))
  np.testing.assert_array_equal(rows, [1])


def test_a_crowd_of_uncertain_images_comes_before_an_outlier():
  crowd = np.array([[0.0, 1.0, 0.01 * i] for i in range(5)])
  outlier = np.array([[0.0, 0.0, -1.0]])
  certain = np.array([[1.0, 0.02, 0.0]] * 4)
  points = np.concatenate([crowd, outlier, certain])
  found = label_advice.next_to_label(
    points,
    np.array([1.0] * 6 + [0.01] * 4),
    novelty(points, np.array([[2.0, 0.0, 0.0]])),
    most=2,
  )
  # The middle of the crowd, then the outlier; never two alike.
  np.testing.assert_array_equal(found.rows, [2, 5])
  # The certain images resemble the labelled one more than either.
  np.testing.assert_array_equal(found.stands_for, [5, 1])


def test_suggestions_are_those_of_plain_greedy():
  rng = np.random.default_rng(0)
  points, supports = rng.normal(size=(60, 4)), rng.normal(size=(3, 4))
  entropy = rng.uniform(size=60)
  similarity = unit(points) @ unit(points).T
  nearest = 1 - novelty(points, supports)
  expected = []
  for _ in range(8):
    gains = np.maximum(similarity - nearest, 0) @ entropy
    expected.append(int(gains.argmax()))
    nearest = np.maximum(nearest, similarity[expected[-1]])
  found = label_advice.next_to_label(
    points, entropy, novelty(points, supports), most=8
  )
  np.testing.assert_array_equal(found.rows, expected)


def test_greedy_is_close_to_the_best_of_all_choices():
  rng = np.random.default_rng(1)
  points, supports = rng.normal(size=(12, 3)), rng.normal(size=(1, 3))
  entropy = rng.uniform(size=12)
  similarity = unit(points) @ unit(points).T
  start = 1 - novelty(points, supports)

  def value(rows):
    nearest = np.maximum(start, similarity[:, list(rows)].max(axis=1))
    return entropy @ (nearest - start)

  best = max(map(value, itertools.combinations(range(12), 3)))
  found = label_advice.next_to_label(points, entropy, 1 - start, most=3)
  assert value(found.rows) >= (1 - np.exp(-1)) * best


def test_images_that_would_tell_nothing_are_not_suggested():
  points = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0]])
  found = label_advice.next_to_label(
    points, np.array([0.5] * 3), np.array([0.0, 1.0, 1.0]), most=3
  )
  np.testing.assert_array_equal(found.rows, [1])
  np.testing.assert_array_equal(found.stands_for, [2])


@pytest.mark.parametrize(("entropies", "novelties"), [(4, 5), (3, 4)])
def test_numbers_that_disagree(entropies, novelties):
  problem = f"4 .* {entropies} entropies and {novelties} novelties"
  with pytest.raises(ValueError, match=problem):
    label_advice.next_to_label(
      np.ones((4, 2)), np.ones(entropies), np.ones(novelties), most=1
    )
