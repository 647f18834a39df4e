"""Estimates of the shares of classes, on features whose classes are known."""

import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax.methods import base
from paws_jax.methods import class_prior
from tests import toy_method

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


def _estimate(kind, features, labels, **options):
  options["num_classes"] = 3
  if kind == "labels":
    return class_prior.from_labels(features, labels, **options)
  return class_prior.from_embeddings(
    features, labels, temperature=0.1, **options
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


@pytest.mark.parametrize("kind", ["labels", "embeddings"])
def test_labelled_images_count_where_they_are_unlabelled_ones_too(kind):
  # Labels as often as in no pool: most of the rarest class.
  features, classes, labels = _data(num_images=200)
  labels[:] = -1
  for number, count in enumerate((5, 5, 15)):
    labels[np.flatnonzero(classes == number)[:count]] = number
  for include, counted in ((True, classes), (False, classes[labels < 0])):
    shares = _estimate(kind, features, labels, include_labelled=include)
    true = np.bincount(counted, minlength=3) / len(counted)
    np.testing.assert_allclose(shares, np.maximum(true, 1 / 12), atol=0.03)
  # A pool of none says nothing.
  labelled = labels >= 0
  options = {"include_labelled": False}
  shares = _estimate(kind, features[labelled], labels[labelled], **options)
  np.testing.assert_allclose(shares, 1 / 3)


def test_votes_of_distant_images_are_not_lost():
  # Opposite to all labelled images, and least to the last class.
  embeddings = np.float32([[1, 0.0], [1, 0.1], [1, 0.5]] + 9 * [[-1, 0]])
  labels = np.array([0, 1, 2] + 9 * [-1])
  shares = class_prior.from_embeddings(
    embeddings, labels, num_classes=3, temperature=0.01
  )
  assert shares.argmax() == 2


def test_the_confidence_is_the_accuracy_on_labels_left_out():
  features, _, labels = _data()
  assert class_prior.held_out_accuracy(features, labels) == 1
  # Features that say nothing.
  noise = np.random.default_rng(1).standard_normal(features.shape)
  assert class_prior.held_out_accuracy(noise, labels) < 0.7
  # Of a class with one label no accuracy is known.
  labels[np.flatnonzero(labels == 2)[1:]] = -1
  assert class_prior.held_out_accuracy(features, labels) == 1
  single = np.full(len(labels), -1)
  for number in range(3):
    single[np.flatnonzero(labels == number)[0]] = number
  assert np.isnan(class_prior.held_out_accuracy(features, single))


def test_it_is_not_measured_where_that_takes_long(monkeypatch):
  features, _, labels = _data()
  monkeypatch.setattr(class_prior, "_MOST_NUMBERS", 100)
  assert np.isnan(class_prior.held_out_accuracy(features, labels))


def _facts(labels):
  return base.Facts(
    num_images=len(labels), num_classes=3, class_counts=(5,) * 3, labels=labels
  )


def test_an_estimate_starts_from_labels_and_is_refined():
  features, classes, labels = _data(num_images=300)
  calls = []

  def embed(*, trunk=False):
    calls.append(trunk)
    # The run itself sees the first class alone.
    return features if trunk else np.ones_like(features)

  options = {"facts": _facts(labels), "temperature": 0.1}
  extra = class_prior.initial(options["facts"])
  assert class_prior.read({}) is None
  np.testing.assert_allclose(class_prior.read(extra).shares, 1 / 3)
  extra = class_prior.estimate(extra, embed, step=0, **options)
  first = class_prior.read(extra)
  true = np.bincount(classes) / len(classes)
  np.testing.assert_allclose(first.shares, true, atol=0.03)
  assert first.change == 0
  assert first.held_out_accuracy == 1
  extra = class_prior.estimate({**extra, "queue": 7}, embed, step=5, **options)
  later = class_prior.read(extra)
  assert extra["queue"] == 7
  np.testing.assert_array_equal(later.by_labels, first.shares)
  own = class_prior.from_embeddings(
    np.ones_like(features), labels, num_classes=3, temperature=0.1
  )
  np.testing.assert_allclose(later.shares, (first.shares + own) / 2, rtol=1e-5)
  distance = np.abs(own - first.shares).sum() / 2
  assert distance > 0.2
  assert later.change == pytest.approx(distance, rel=1e-4)
  assert calls == [True, False]


@pytest.mark.parametrize("name", ["paws", "ropaws"])
def test_a_step_has_the_estimate_of_its_classes(name):
  method = toy_method.create(name=name, prior="estimate")
  batch = toy_method.make_views()._replace(class_ids=np.array([0, 2]))
  extra = {"prior": jnp.array([0.6, 0.1, 0.2])}
  prior = method._step_prior(batch, extra)
  np.testing.assert_allclose(prior, [0.75, 0.25], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paws", "ropaws"])
def test_the_estimate_reaches_me_max(name, monkeypatch):
  shares = (0.1, 0.2, 0.7)
  views = toy_method.make_views()
  views = views._replace(
    class_ids=views.class_ids - 5, support_labels=views.support_labels - 5
  )
  estimated = toy_method.create(name=name, prior="estimate")
  monkeypatch.setattr(
    type(estimated),
    "init_extra",
    lambda *_: {"prior": jnp.asarray(shares)},
  )
  given = toy_method.create(name=name, prior="given", prior_probs=shares)
  uniform = toy_method.create(name=name)
  kl, expected, other = (
    toy_method.measure(method, views)["me_max_kl"]
    for method in (estimated, given, uniform)
  )
  np.testing.assert_allclose(kl, expected, rtol=1e-6)
  assert abs(kl - other) > 1e-3


@pytest.mark.parametrize("name", ["paws", "ropaws"])
def test_only_an_estimated_prior_is_state(name):
  for prior in ("uniform", "labels"):
    method = toy_method.create(name=name, prior=prior, class_counts=(1, 2, 3))
    assert not method.acts_between_epochs
    assert method.init_extra(None, None, None, toy_method.FACTS) == {}
  assert toy_method.create(name=name, prior="estimate").acts_between_epochs
