"""The linear probe: scikit-learn's solution, λ by left-out images alone."""

import numpy as np
import pytest
from sklearn import linear_model

from paws_jax.evaluation import linear_probe

NUM_CLASSES = 3


def _data(num_images=60, dim=7, *, noise=1.0, seed=0):
  """Features whose class can be told from three of them, and labels."""
  rng = np.random.default_rng(seed)
  labels = np.arange(num_images) % NUM_CLASSES
  features = rng.normal(0, noise, (num_images, dim))
  features[np.arange(num_images), labels] += 2
  # Scales that standardising has to undo.
  return (features * 10.0 ** np.arange(-3, 4) + 5).astype(np.float32), labels


def _fit(features, labels, **settings):
  return linear_probe.fit(
    features, labels, **{"num_classes": NUM_CLASSES, "seed": 0} | settings
  )


@pytest.fixture
def few_strengths(monkeypatch):
  """Less to choose from, and to wait for."""
  monkeypatch.setattr(linear_probe, "STRENGTHS", (0.1, 0.01))


def test_it_is_the_solution_of_scikit_learn():
  features, labels = _data()
  probe = _fit(features, labels)
  rows = (features - features.mean(axis=0)) / features.std(axis=0)
  theirs = linear_model.LogisticRegression(
    C=1 / (probe.strength * len(labels)), tol=1e-9, max_iter=2000
  ).fit(rows.astype(np.float64), labels)
  np.testing.assert_allclose(
    probe.probabilities(features), theirs.predict_proba(rows), atol=2e-3
  )
  assert probe.num_folds == 5
  assert probe.num_left_out == 60


def test_the_strength_has_the_least_log_loss_of_left_out_images():
  features, labels = _data(num_images=24)
  folds = linear_probe.deal(labels, seed=0)
  losses = []
  for strength in linear_probe.STRENGTHS:
    total = 0
    for fold in range(5):
      kept = folds != fold
      mean, scale = features[kept].mean(axis=0), features[kept].std(axis=0)
      rows = ((features - mean) / scale).astype(np.float64)
      model = linear_model.LogisticRegression(
        C=1 / (strength * kept.sum()), tol=1e-9, max_iter=5000
      ).fit(rows[kept], labels[kept])
      probs = model.predict_proba(rows[~kept])
      total -= np.log(probs[np.arange((~kept).sum()), labels[~kept]]).sum()
    losses.append(total)
  best = linear_probe.STRENGTHS[int(np.argmin(losses))]
  assert _fit(features, labels).strength == best
  assert best not in linear_probe.STRENGTHS[:: len(losses) - 1]


@pytest.mark.usefixtures("few_strengths")
def test_images_that_are_left_out_do_not_standardise(monkeypatch):
  seen, statistics = [], linear_probe._statistics

  def note(features):
    seen.append(len(features))
    return statistics(features)

  monkeypatch.setattr(linear_probe, "_statistics", note)
  _fit(*_data())
  assert seen == [48] * 5 + [60]


def test_noise_asks_for_a_stronger_penalty():
  clear = _fit(*_data(noise=0.1)).strength
  noise = np.random.default_rng(0).normal(size=(60, 7))
  assert _fit(noise, np.arange(60) % 3).strength > 10 * clear


def test_images_are_dealt_evenly_into_folds():
  labels = np.array([0] * 7 + [1] * 2 + [2])
  folds = linear_probe.deal(labels, seed=3)
  assert sorted(folds[:7]) == [0, 0, 1, 1, 2, 3, 4]
  assert sorted(folds[7:9]) == [0, 1]
  # The only image of its class always stays.
  assert folds[9] == -1
  np.testing.assert_array_equal(folds, linear_probe.deal(labels, seed=3))
  assert (folds != linear_probe.deal(labels, seed=4)).any()


def test_copies_are_left_out_together():
  labels = np.array([0] * 7 + [1] * 3 + [2] * 2)
  copies = np.arange(12)
  want = linear_probe.deal(labels, seed=3)
  np.testing.assert_array_equal(
    want, linear_probe.deal(labels, seed=3, copies=copies)
  )
  copies[[2, 5]], copies[9], copies[11] = 0, 7, 10
  folds = linear_probe.deal(labels, seed=3, copies=copies)
  np.testing.assert_array_equal(folds, folds[copies])
  assert sorted(folds[[0, 1, 3, 4, 6]]) == [0, 1, 2, 3, 4]
  assert sorted(folds[7:9]) == [0, 1]
  # All images of the last class are one.
  assert folds[10] == folds[11] == -1


def test_single_images_leave_the_strength_as_it_is():
  features, labels = _data(num_images=3)
  probe = _fit(features, labels)
  assert probe.strength == linear_probe.FIXED_STRENGTH
  assert probe.num_folds == probe.num_left_out == 0
  assert (probe.probabilities(features).argmax(axis=1) == labels).all()


@pytest.mark.usefixtures("few_strengths")
def test_of_many_images_one_fold_decides(monkeypatch):
  monkeypatch.setattr(linear_probe, "_MANY_IMAGES", 59)
  probe = _fit(*_data())
  assert probe.num_left_out == 12
  assert probe.num_folds == 5


@pytest.mark.usefixtures("few_strengths")
def test_features_that_never_change_do_not_matter():
  features, labels = _data()
  constant = np.full((60, 1), 0.3, np.float32)
  probe = _fit(np.concatenate([features, constant], axis=1), labels)
  assert probe.scale[-1] == 1
  np.testing.assert_allclose(probe.kernel[-1], 0, atol=1e-4)
  np.testing.assert_allclose(
    probe.kernel[:-1], _fit(features, labels).kernel, atol=5e-3
  )


@pytest.mark.usefixtures("few_strengths")
def test_a_class_without_an_image_is_not_expected():
  features, labels = _data()
  probe = _fit(features, labels, num_classes=4)
  assert probe.probabilities(features)[:, 3].max() < 0.01


def test_bad_input_is_refused():
  features, labels = _data()
  with pytest.raises(ValueError, match="60 rows of features but 59 labels"):
    _fit(features, labels[:-1])
  with pytest.raises(ValueError, match="0 rows of features but 0 labels"):
    _fit(features[:0], labels[:0])
  with pytest.raises(ValueError, match=r"labels lie in \[0, 2\], .* \[0, 2\)"):
    _fit(features, labels, num_classes=2)
  features[[3, 5], 1] = np.nan, np.inf
  with pytest.raises(ValueError, match="2 of 60 rows of features are not"):
    _fit(features, labels)
