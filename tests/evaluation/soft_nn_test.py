"""Soft-NN evaluation: golden numbers, padding, leave-one-out, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from paws_jax import config as config_lib
from paws_jax.evaluation import accuracy as accuracy_lib
from paws_jax.evaluation import embed as embed_lib
from paws_jax.evaluation import soft_nn
from paws_jax.parallel import mesh
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


def test_top_k_counts_the_label_among_the_k_most_probable():
  probs = np.array([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
  labels = np.array([2, 0, 0])
  assert accuracy_lib.top_k_accuracy(probs, labels, 1) == pytest.approx(1 / 3)
  assert accuracy_lib.top_k_accuracy(probs, labels, 2) == pytest.approx(2 / 3)
  assert accuracy_lib.top_k_accuracy(probs, labels, 3) == 1


def test_of_equally_probable_classes_the_lower_number_wins():
  probs = np.full((4, 4), 0.25)
  assert accuracy_lib.top_k_accuracy(probs, np.arange(4), 1) == 0.25
  assert accuracy_lib.top_k_accuracy(probs[:1], np.array([0]), 1) == 1
  assert accuracy_lib.top_k_accuracy(probs[:1], np.array([1]), 1) == 0
  assert accuracy_lib.top_k_accuracy(probs[:1], np.array([1]), 2) == 1
  tie = np.array([[0.2, 0.4, 0.4]])
  assert accuracy_lib.top_k_accuracy(tie, np.array([1]), 1) == 1
  assert accuracy_lib.top_k_accuracy(tie, np.array([2]), 1) == 0


def test_with_five_classes_or_fewer_every_row_is_in_the_top_five():
  for num_classes in (2, 5):
    labels = np.arange(num_classes)
    probs = np.eye(num_classes)[::-1]
    assert accuracy_lib.top_k_accuracy(probs, labels, 5) == 1
  probs = np.arange(6.0)[None, :]
  assert accuracy_lib.top_k_accuracy(probs, np.array([0]), 5) == 0


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
  interval = accuracy_lib.confidence_interval(fraction, count)
  assert interval == pytest.approx((low, high), abs=5e-5)
  assert 0 <= interval[0] <= fraction <= interval[1] <= 1


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


class Pixels(nn.Module):
  """A stand-in for an encoder: h is the crop's pixels, z twice that."""

  @nn.compact
  def __call__(self, images, *, train, mask=None):
    assert not train
    assert mask is None
    scale = self.param("scale", nn.initializers.ones, (1, 1))
    shift = self.variable("batch_stats", "mean", jnp.zeros, (1, 1))
    h = images.reshape(images.shape[0], -1)
    return h, 2 * scale * h + shift.value


VIEW = config_lib.EvalView(eval_resize=0, eval_size=4, mean=(0.5,), std=(0.25,))
PARAMS = {"scale": np.float32([[3]])}
STATS = {"batch_stats": {"mean": np.float32([[1]])}}


@functools.cache
def _embedder(num_devices, batch_size):
  return embed_lib.make_embedder(
    Pixels(),
    view=VIEW,
    batch_size=batch_size,
    mesh=mesh.make_mesh(jax.devices()[:num_devices]),
  )


@pytest.mark.parametrize(
  ("num_devices", "batch_size"), [(1, 7), (1, 64), (4, 6), (8, 8), (8, 3)]
)
def test_every_image_is_embedded_once_whatever_batch_and_devices(
  num_devices, batch_size
):
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (19, 6, 6, 1), np.uint8)

  z = _embedder(num_devices, batch_size)(PARAMS, STATS, images)
  assert isinstance(z, np.ndarray)
  assert z.dtype == np.float32
  # The centre 4 x 4, normalised; z and not h, with the running statistics.
  crops = (images[:, 1:5, 1:5] / 255 - 0.5) / 0.25
  expected = 6 * crops.reshape(19, 16) + 1
  np.testing.assert_allclose(z, expected, rtol=1e-5, atol=1e-5)


def test_no_more_than_two_results_are_on_the_device_at_once():
  waiting = []

  def resize(images):
    # Asked for before each batch.
    results = [a for a in jax.live_arrays() if a.shape == (3, 16)]
    waiting.append(len(results))
    return images

  embed = embed_lib.make_embedder(
    Pixels(),
    view=VIEW,
    batch_size=3,
    mesh=mesh.make_mesh(jax.devices()[:1]),
    resize=resize,
  )
  assert len(embed(PARAMS, STATS, np.zeros((19, 6, 6, 1), np.uint8))) == 19
  assert waiting == [0, 1, 1, 1, 1, 1, 1]


def test_other_layers_can_be_asked_for():
  rng = np.random.default_rng(1)
  images = rng.integers(0, 256, (5, 4, 4, 1), np.uint8)
  embed = embed_lib.make_embedder(
    Pixels(),
    view=VIEW,
    batch_size=4,
    mesh=mesh.make_mesh(jax.devices()[:1]),
    layers=lambda encoder, crops: jnp.concatenate(
      encoder(crops, train=False), axis=1
    ),
  )
  h = (images.reshape(5, 16) / 255 - 0.5) / 0.25
  expected = np.concatenate([h, 6 * h + 1], axis=1)
  np.testing.assert_allclose(
    embed(PARAMS, STATS, images), expected, rtol=1e-5, atol=1e-5
  )
