"""The vote: against the evaluation's, on one batch and on several devices."""

import numpy as np
import pytest

from paws_jax.classifier import predictions
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.classifier import vote as vote_lib
from paws_jax.evaluation import soft_nn
from paws_jax.parallel import mesh


@pytest.mark.parametrize(("num_queries", "size"), [(5, 5), (3, 16), (16, 16)])
def test_probabilities_are_those_of_the_evaluation(num_queries, size):
  rng = np.random.default_rng(0)
  support_bank = support_bank_lib.SupportBank(
    embeddings=rng.normal(size=(12, 6)).astype(np.float32),
    labels=rng.integers(0, 4, 12).astype(np.int32),
    names=tuple("abcdefghijkl"),
    thumbnails=np.zeros((12, 1, 1, 1), np.uint8),
  )
  queries = rng.normal(size=(num_queries, 6)).astype(np.float32)
  vote = vote_lib.make_voter(
    support_bank,
    num_classes=5,
    temperature=0.1,
    head=None,
    mesh=mesh.make_mesh(),
  )
  got = vote(queries, num_supports=2, size=size)
  want = soft_nn.soft_nn_probabilities(
    queries,
    support_bank.embeddings,
    support_bank.labels,
    num_classes=5,
    temperature=0.1,
  )
  np.testing.assert_allclose(got.probabilities, want, rtol=1e-4, atol=1e-7)
  np.testing.assert_array_equal(got.classes, want.argmax(axis=1))
  unit = [
    x / np.linalg.norm(x, axis=1)[:, None]
    for x in (queries, support_bank.embeddings)
  ]
  cosines = unit[0] @ unit[1].T
  np.testing.assert_allclose(got.novelty, 1 - cosines.max(axis=1), atol=1e-5)
  np.testing.assert_array_equal(
    got.support_indices, (-cosines).argsort(axis=1)[:, :2]
  )
  assert got.entropy.min() >= 0
  both = predictions.concatenate([got, got])
  assert len(both) == 2 * num_queries
  np.testing.assert_array_equal(both.classes[num_queries:], got.classes)
