"""Label rows, sharpening, directions of embeddings, refusals of the vote."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from tests import golden_reference

pytestmark = pytest.mark.unoptimized


def test_label_rows_equal_the_references_matrices():
  matrices, cases = golden_reference.load("labels_matrix")
  covered = 0
  for key, case in cases.items():
    ranks = case["world_size"]
    if ranks > 1 and not case["unique_classes"]:
      # The reference then has columns that no label names, and rows that do
      # not sum to 1. Ours have a column per class of the step.
      continue
    per_rank = np.tile(np.arange(case["num_classes"]), case["s_batch_size"])
    first = np.arange(ranks)[:, None] * case["num_classes"]
    # Class ids need not be column numbers.
    labels = jnp.asarray((first + per_rank[None]).ravel() + 100)
    rows = losses.label_rows(
      labels,
      jnp.arange(ranks * case["num_classes"]) + 100,
      smoothing=case["smoothing"],
    )
    np.testing.assert_allclose(rows, matrices[key], atol=1e-7, err_msg=key)
    covered += 1
  assert covered == 12


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_smoothed_label_rows_sum_to_one(smoothing):
  labels = jnp.array([7, 3, 5, 3])
  rows = losses.label_rows(labels, jnp.array([3, 5, 7]), smoothing=smoothing)
  np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-6)
  np.testing.assert_array_equal(np.argmax(rows, -1), [2, 0, 1, 0])
  np.testing.assert_allclose(rows.max(-1), 1 - smoothing + smoothing / 3)


def test_a_label_without_a_column_names_no_class():
  rows = losses.label_rows(jnp.array([9]), jnp.array([3, 5]), smoothing=0.1)
  np.testing.assert_allclose(rows, [[0.05, 0.05]], rtol=1e-6)


def _normal(seed, *shape):
  """Float64 under x64, else float32."""
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def test_sharpening():
  probs = jax.nn.softmax(_normal(0, 8, 5), axis=-1)
  same = losses.sharpen(probs, temperature=1.0)
  np.testing.assert_allclose(same, probs, rtol=1e-6)
  one_hot = losses.sharpen(probs, temperature=1e-3)
  np.testing.assert_allclose(one_hot, jnp.eye(5)[probs.argmax(-1)], atol=1e-6)
  sharp = losses.sharpen(probs, temperature=0.25)
  np.testing.assert_allclose(
    sharp, np.asarray(probs) ** 4 / np.sum(probs**4, -1, keepdims=True), 1e-5
  )


def test_sharpening_many_small_probabilities_does_not_underflow():
  probs = jnp.full((1, 2000), 1 / 2000)
  # (1/2000) ** 20 is nothing in float32.
  sharp = losses.sharpen(probs, temperature=0.05)
  np.testing.assert_allclose(sharp, probs, rtol=1e-5)


def test_a_zero_embedding_has_a_finite_direction():
  zero = jnp.zeros((1, 4))
  np.testing.assert_array_equal(losses.normalize(zero), zero)
  grad = jax.grad(lambda x: losses.normalize(x).sum())(zero)
  np.testing.assert_allclose(grad, 1 / losses.MIN_NORM, rtol=1e-6)


@pytest.mark.parametrize(
  ("queries", "supports", "labels", "message"),
  [
    ((3,), (2, 4), (2, 2), r"two dimensions; got shapes \(3,\), \(2, 4\)"),
    ((3, 4), (2, 4), (2,), r"two dimensions.* and \(2,\)"),
    ((3, 5), (2, 4), (2, 2), "queries have 5 dimensions and supports 4"),
    ((3, 4), (2, 4), (6, 2), "2 supports but 6 label rows"),
  ],
)
def test_supports_that_do_not_fit_are_refused(
  queries, supports, labels, message
):
  with pytest.raises(ValueError, match=message):
    losses.soft_nearest_neighbours(
      jnp.ones(queries), jnp.ones(supports), jnp.ones(labels), temperature=0.1
    )
