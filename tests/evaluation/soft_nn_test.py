"""Soft-NN evaluation: golden numbers, padding, leave-one-out, errors."""

import jax
import numpy as np
import pytest

from paws_jax.evaluation import soft_nn
from tests import golden_reference

NUM_CLASSES = 4


def _random(num_queries=23, num_supports=17, seed=0):
  """Queries [n, 6], their labels, supports and theirs; classes overlap."""
  rng = np.random.default_rng(seed)
  centres = rng.normal(size=(NUM_CLASSES, 6))
  result = []
  for count in (num_queries, num_supports):
    labels = rng.integers(0, NUM_CLASSES, count)
    rows = centres[labels] + rng.normal(0, 1, (count, 6))
    result += [rows.astype(np.float32), labels]
  return result


def _votes(queries, supports, labels, *, temperature=0.1):
  """Soft nearest neighbors in NumPy's float64, one query at a time."""
  votes = np.zeros((len(queries), NUM_CLASSES))
  supports = supports.astype(np.float64)
  for i, query in enumerate(queries.astype(np.float64)):
    norms = np.linalg.norm(supports, axis=1) * np.linalg.norm(query)
    weights = np.exp(supports @ query / norms / temperature)
    np.add.at(votes[i], labels, weights / weights.sum())
  return votes


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("name", ["snn_eval_k10", "snn_eval_k25"])
def test_votes_and_accuracies_equal_the_reference(name, x64):
  # These numbers may change only with the file they are read from.
  golden, config = golden_reference.load(name)
  settings = {
    "num_classes": config["num_classes"],
    "temperature": config["temp"],
  }
  dtype = np.float64 if x64 else np.float32
  arrays = [golden[k] for k in ("queries", "query_labels", "embs", "labs")]
  arrays = [a.astype(dtype) if a.dtype == np.float32 else a for a in arrays]
  queries, query_labels, supports, labels = arrays
  with jax.enable_x64(x64):
    probs = soft_nn.soft_nn_probabilities(queries, supports, labels, **settings)
    accuracy = soft_nn.soft_nn_accuracy(
      queries, query_labels, supports, labels, **settings
    )
  assert probs.dtype == dtype
  tolerance = 1e-9 if x64 else 1e-5
  np.testing.assert_allclose(probs, golden["probs_f64"], rtol=0, atol=tolerance)
  # The golden ones are percentages.
  assert accuracy["top1"] == pytest.approx(golden["top1_f64"] / 100, abs=1e-9)
  assert accuracy["top5"] == pytest.approx(golden["top5_f64"] / 100, abs=1e-9)


def test_votes_equal_a_plain_loop():
  queries, _, supports, labels = _random()
  probs = soft_nn.soft_nn_probabilities(
    queries, supports, labels, num_classes=NUM_CLASSES, temperature=0.1
  )
  np.testing.assert_allclose(
    probs, _votes(queries, supports, labels), atol=1e-5
  )
  np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 7, 22, 23, 1024])
def test_the_batch_size_changes_nothing(batch_size):
  queries, query_labels, supports, labels = _random()
  settings = {"num_classes": NUM_CLASSES, "temperature": 0.1}
  probs = soft_nn.soft_nn_probabilities(
    queries, supports, labels, batch_size=batch_size, **settings
  )
  assert probs.shape == (23, NUM_CLASSES)
  np.testing.assert_allclose(
    probs, _votes(queries, supports, labels), atol=1e-5
  )
  accuracy = soft_nn.soft_nn_accuracy(
    queries,
    query_labels,
    supports,
    labels,
    batch_size=batch_size,
    **settings,
  )
  right = (probs.argmax(-1) == query_labels).mean()
  assert accuracy == {"top1": pytest.approx(right), "top5": 1.0}
  assert 0 < accuracy["top1"] < 1


@pytest.mark.parametrize("batch_size", [5, 1024])
def test_leave_one_out_equals_dropping_each_support_in_turn(batch_size):
  _, _, supports, labels = _random()
  probs = soft_nn.soft_nn_probabilities(
    supports,
    supports,
    labels,
    num_classes=NUM_CLASSES,
    temperature=0.1,
    batch_size=batch_size,
    leave_one_out=True,
  )
  for i in range(len(supports)):
    others = np.arange(len(supports)) != i
    expected = _votes(supports[i : i + 1], supports[others], labels[others])
    np.testing.assert_allclose(probs[i], expected[0], atol=1e-5)


@pytest.mark.parametrize("chunk_size", [4, 1024])
def test_copies_of_an_image_do_not_vote_on_it(chunk_size):
  _, _, supports, labels = _random()
  copies = np.arange(len(supports))
  for copy, original in ((4, 2), (9, 2), (8, 7)):
    supports[copy], copies[copy] = supports[original], original
  settings = {"leave_one_out": True, "chunk_size": chunk_size}
  probs = _call(supports, supports, labels, copies=copies, **settings)
  for i in range(len(supports)):
    others = copies != copies[i]
    expected = _votes(supports[i : i + 1], supports[others], labels[others])
    np.testing.assert_allclose(probs[i], expected[0], atol=1e-5)
  # Without copies nothing changes, not even by rounding.
  alone = np.arange(len(supports))
  np.testing.assert_array_equal(
    _call(supports, supports, labels, copies=alone, **settings),
    _call(supports, supports, labels, **settings),
  )
  copies = np.zeros(3, int)
  with pytest.raises(ValueError, match="all 3 are copies of one image"):
    _call(supports[:3], supports[:3], labels[:3], copies=copies, **settings)


def _call(queries, supports, labels, **settings):
  return soft_nn.soft_nn_probabilities(
    queries,
    supports,
    labels,
    num_classes=NUM_CLASSES,
    temperature=0.1,
    **settings,
  )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["queries", "supports"])
def test_embeddings_that_are_not_finite_are_counted_and_refused(name, bad):
  queries, _, supports, labels = _random()
  rows = {"queries": queries, "supports": supports}[name]
  rows[3, 2] = rows[3, 4] = rows[5, 0] = bad
  with pytest.raises(
    ValueError, match=rf"2 of {len(rows)} {name} .*not finite"
  ):
    _call(queries, supports, labels)


@pytest.mark.parametrize("label", [-1, NUM_CLASSES])
def test_labels_outside_the_classes_are_refused(label):
  queries, query_labels, supports, labels = _random()
  bad = labels.copy()
  bad[2] = label
  with pytest.raises(ValueError, match=r"support_labels .*outside \[0, 4\)"):
    _call(queries, supports, bad)
  bad = query_labels.copy()
  bad[2] = label
  with pytest.raises(ValueError, match=r"query_labels .*outside \[0, 4\)"):
    soft_nn.soft_nn_accuracy(
      queries,
      bad,
      supports,
      labels,
      num_classes=NUM_CLASSES,
      temperature=0.1,
    )


def test_lengths_that_disagree_are_refused_with_both():
  queries, query_labels, supports, labels = _random()
  settings = {"num_classes": NUM_CLASSES, "temperature": 0.1}
  with pytest.raises(ValueError, match="17 supports but 16 support_labels"):
    _call(queries, supports, labels[:-1])
  with pytest.raises(ValueError, match="23 queries but 22 query_labels"):
    soft_nn.soft_nn_accuracy(
      queries, query_labels[:-1], supports, labels, **settings
    )
  with pytest.raises(ValueError, match="0 queries but 0 query_labels"):
    soft_nn.soft_nn_accuracy(
      queries[:0], query_labels[:0], supports, labels, **settings
    )
  with pytest.raises(ValueError, match="23 queries and 17 supports"):
    _call(queries, supports, labels, leave_one_out=True)
  with pytest.raises(ValueError, match="1 queries and 1 supports"):
    _call(supports[:1], supports[:1], labels[:1], leave_one_out=True)


def test_a_vote_needs_queries_and_supports():
  queries, _, supports, labels = _random()
  with pytest.raises(ValueError, match="0 queries and 17 supports: a vote"):
    _call(queries[:0], supports, labels)
  with pytest.raises(ValueError, match="23 queries and 0 supports: a vote"):
    _call(queries, supports[:0], labels[:0])
