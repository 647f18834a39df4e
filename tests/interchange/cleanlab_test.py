"""cleanlab: arrays in which a wrong label is found."""

import dataclasses

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.interchange import cleanlab as to_cleanlab
from tests import random_classifier


@pytest.fixture(scope="module")
def classifier():
  """Three classes, far apart, ten images each; image 3 has a wrong label."""
  rng = np.random.default_rng(0)
  labels = np.repeat(np.arange(3, dtype=np.int32), 10)
  embeddings = 5 * np.eye(6, dtype=np.float32)[labels]
  embeddings += rng.normal(0, 0.5, embeddings.shape).astype(np.float32)
  labels[3] = 2
  made = random_classifier.make()
  return dataclasses.replace(
    made,
    temperature=0.1,
    support_bank=support_bank_lib.SupportBank(
      embeddings=embeddings,
      labels=labels,
      names=tuple(f"{i}.png" for i in range(30)),
      thumbnails=np.zeros((30, 4, 4, 1), np.uint8),
    ),
  )


def test_supports_are_judged_by_the_others(classifier):
  arrays = to_cleanlab.support_arrays(classifier)
  assert arrays.features.shape == (30, 6)
  assert arrays.pred_probs.shape == (30, 3)
  np.testing.assert_allclose(arrays.pred_probs.sum(axis=1), 1, rtol=1e-5)
  wrong = np.flatnonzero(arrays.pred_probs.argmax(axis=1) != arrays.labels)
  assert wrong.tolist() == [3]
  assert arrays.names[3] == "3.png"
  assert arrays.class_names == random_classifier.CLASSES


def test_cleanlab_finds_the_wrong_label(classifier):
  cleanlab_filter = pytest.importorskip("cleanlab.filter")
  arrays = to_cleanlab.support_arrays(classifier)
  found = cleanlab_filter.find_label_issues(
    arrays.labels, arrays.pred_probs, return_indices_ranked_by="self_confidence"
  )
  assert found.tolist() == [3]


def test_copies_do_not_vote_on_each_other(classifier):
  bank = classifier.support_bank
  embeddings = bank.embeddings.copy()
  # A copy of the wrong one would confirm it.
  embeddings[29] = embeddings[3]
  changed = dataclasses.replace(
    classifier, support_bank=dataclasses.replace(bank, embeddings=embeddings)
  )
  arrays = to_cleanlab.support_arrays(changed)
  wrong = np.flatnonzero(arrays.pred_probs.argmax(axis=1) != arrays.labels)
  assert wrong.tolist() == [3, 29]
  assert arrays.pred_probs[3, 2] < 0.01


def test_what_says_nothing_is_refused(classifier):
  with pytest.raises(errors.InputError, match="head has learned from all"):
    to_cleanlab.support_arrays(random_classifier.make(head=True))
  bank = classifier.support_bank
  same = dataclasses.replace(bank, embeddings=np.ones_like(bank.embeddings))
  with pytest.raises(errors.InputError, match="30 labelled images are copies"):
    to_cleanlab.support_arrays(
      dataclasses.replace(classifier, support_bank=same)
    )


def test_predictions_of_other_images(classifier):
  images = random_classifier.pixels((9, 12, 1), 3)
  predictions = classifier.predict(images)
  embeddings = classifier.embed(images)
  labels = ["cow", "ant", "bee"]
  arrays = to_cleanlab.prediction_arrays(predictions, embeddings, labels)
  assert arrays.labels.tolist() == [2, 0, 1]
  assert arrays.names == ("0", "1", "2")
  np.testing.assert_array_equal(arrays.features, embeddings)
  np.testing.assert_array_equal(arrays.pred_probs, predictions.probabilities)
  with pytest.raises(errors.InputError, match="3 predictions and 2 embeddings"):
    to_cleanlab.prediction_arrays(predictions, embeddings[:2], labels)
  with pytest.raises(errors.InputError, match="3 predictions and 1 labels"):
    to_cleanlab.prediction_arrays(predictions, embeddings, labels[:1])
  with pytest.raises(
    errors.InputError, match=r"2 labels .* '' \(x\), 'dog' \(z"
  ):
    to_cleanlab.prediction_arrays(
      predictions, embeddings, ["", "ant", "dog"], names="xyz"
    )
