"""Estimates of the shares of classes, on features whose classes are known."""

import numpy as np
import pytest

from paws_jax.methods import class_prior

SHARES = np.array([0.6, 0.3, 0.1])


def _data(seed=0, num_images=600, per_class=5, noise=0.3):
  """Returns features [n, 8], true classes, and labels with -1."""
  rng = np.random.default_rng(seed)
  classes = rng.choice(3, num_images, p=SHARES)
  centers = rng.standard_normal((3, 8)) * 2
  features = centers[classes] + noise * rng.standard_normal((num_images, 8))
  labels = np.full(num_images, -1)
  for number in range(3):
    labels[np.flatnonzero(classes == number)[:per_class]] = number
  return features.astype(np.float32), classes, labels


def _estimate(kind, features, labels, num_classes=3):
  if kind == "labels":
    return class_prior.from_labels(features, labels, num_classes=num_classes)
  return class_prior.from_embeddings(
    features, labels, num_classes=num_classes, temperature=0.1
  )


@pytest.mark.parametrize("kind", ["labels", "embeddings"])
def test_shares_are_found_from_few_labels_of_equal_number(kind):
  features, classes, labels = _data()
  shares = _estimate(kind, features, labels)
  true = np.bincount(classes) / len(classes)
  assert shares.sum() == pytest.approx(1)
  np.testing.assert_allclose(shares, true, atol=0.03)
  # The scale of features does not matter.
  np.testing.assert_allclose(_estimate(kind, features * 50, labels), shares)


@pytest.mark.parametrize("kind", ["labels", "embeddings"])
def test_images_without_features_do_not_count(kind):
  features, _, labels = _data()
  without = features.copy()
  without[np.flatnonzero(labels < 0)[::7]] = np.nan
  without[np.flatnonzero(labels == 2)[0]] = np.nan
  shares = _estimate(kind, without, labels)
  np.testing.assert_allclose(
    shares, _estimate(kind, features, labels), atol=0.02
  )


@pytest.mark.parametrize("kind", ["labels", "embeddings"])
def test_no_share_is_zero(kind):
  features, _, labels = _data()
  few = labels.copy()
  # All images of one class: those without a label look like it.
  features[labels < 0] = features[labels == 0].mean(axis=0)
  shares = _estimate(kind, features, few)
  assert shares[0] > 0.8
  assert (shares[1:] > 0.05).all()


def test_the_vote_does_not_depend_on_the_numbers_of_labels():
  features, classes, labels = _data(per_class=20)
  labels[np.flatnonzero(labels == 1)[2:]] = -1
  shares = _estimate("embeddings", features, labels)
  true = np.bincount(classes) / len(classes)
  np.testing.assert_allclose(shares, true, atol=0.03)
