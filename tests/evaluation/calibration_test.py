"""The expected calibration error, by hand."""

import numpy as np
import pytest

from paws_jax.evaluation import calibration


def _rows(confidences):
  """[n, 2] probabilities: class 0 is predicted with each of these."""
  first = np.array(confidences, np.float64)
  return np.stack([first, 1 - first], axis=1)


def test_the_error_is_the_mean_gap_weighted_by_images():
  # Two bins' worth: (0.8, 0.9] holds three, two of them right; (0.5, 0.6] one,
  # wrong.
  found = calibration.calibrate(
    _rows([0.82, 0.84, 0.86, 0.55]), np.array([0, 0, 1, 1]), num_bins=10
  )
  assert found.counts.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 3, 0]
  assert found.confidence[8] == pytest.approx(0.84)
  assert found.accuracy[8] == pytest.approx(2 / 3)
  assert found.accuracy[5] == 0
  expected = (3 * (0.84 - 2 / 3) + 0.55) / 4
  assert found.error == pytest.approx(expected)
  np.testing.assert_array_equal(np.isnan(found.accuracy), found.counts == 0)


def test_there_are_fifteen_bins_closed_above():
  # One image on an edge, one certain, one that rounding has lifted above 1.
  found = calibration.calibrate(
    _rows([12 / 15, 1.0, 1 + 1e-7]), np.array([0, 0, 0])
  )
  assert len(found.counts) == 15
  assert found.counts[[11, 14]].tolist() == [1, 2]
  assert found.edges[[0, -1]].tolist() == [0, 1]


def test_frequencies_that_are_met_have_no_error():
  labels = np.array([0] * 3 + [1])
  assert calibration.calibrate(_rows([0.75] * 4), labels).error == 0
  labels = np.zeros(4, int)
  found = calibration.calibrate(_rows([0.75] * 4), labels)
  assert found.error == pytest.approx(0.25)
