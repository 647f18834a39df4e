"""The prior of me-max: by name, by labels, as given."""

import pytest

from paws_jax import config as config_lib
from paws_jax.config import methods
from paws_jax.methods import paws


def _prior(num_classes=3, class_counts=(1, 2, 5), **fields):
  section = config_lib.base("paws").method.to_dict() | fields
  return paws.Paws.fields_of_data(
    methods.build(section),
    num_classes=num_classes,
    class_counts=class_counts,
  )["prior"]


def test_the_uniform_prior_is_none():
  assert _prior() is None


def test_labels_are_counted():
  assert _prior(prior="labels") == (1 / 8, 2 / 8, 5 / 8)
  # Not known where only shapes matter.
  assert _prior(prior="labels", class_counts=None) is None


def test_rounded_numbers_are_scaled_to_one():
  found = _prior(prior="given", prior_probs=(0.33333, 0.33333, 0.33333))
  assert found == pytest.approx((1 / 3,) * 3, abs=1e-12)
  assert sum(found) == pytest.approx(1, abs=1e-15)


def test_a_prior_of_another_length_is_refused():
  with pytest.raises(
    ValueError, match=r"prior_probs has 2 numbers .* 3 classes"
  ):
    _prior(prior="given", prior_probs=(0.5, 0.5))
  # The data may not be at hand.
  given = _prior(None, prior="given", prior_probs=(0.5, 0.5))
  assert given == (0.5, 0.5)
