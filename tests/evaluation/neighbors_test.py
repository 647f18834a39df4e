"""The nearest supports, chunk by chunk, against the entire matrix."""

import numpy as np
import pytest

from paws_jax.evaluation import neighbors
from paws_jax.evaluation import soft_nn
from tests.evaluation import chunked_vote_test

pytestmark = pytest.mark.unoptimized

CHUNKS = chunked_vote_test.CHUNKS
_random = chunked_vote_test.random_arrays


def _cosines(queries, supports):
  queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
  return queries @ (supports / np.linalg.norm(supports, axis=1)[:, None]).T


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("k", [1, 6, 37])
def test_neighbors_are_those_of_the_whole_matrix(chunk_size, k):
  queries, supports, _ = _random()
  cosines, numbers = neighbors.nearest(
    queries, supports, k, chunk_size=chunk_size, batch_size=10
  )
  everything = _cosines(queries, supports)
  order = np.argsort(-everything, axis=1)[:, :k]
  np.testing.assert_array_equal(numbers, order)
  expected = np.take_along_axis(everything, order, axis=1)
  np.testing.assert_allclose(cosines, expected, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [2, 3, 7])
def test_of_equal_neighbors_the_first_comes_first(chunk_size):
  supports = np.tile(np.float32([[1, 0], [0, 1]]), (4, 1))
  _, numbers = neighbors.nearest(
    np.float32([[3, 0]]), supports, 5, chunk_size=chunk_size
  )
  np.testing.assert_array_equal(numbers, [[0, 2, 4, 6, 1]])


@pytest.mark.parametrize("k", [0, 38])
def test_more_neighbors_than_supports_are_refused(k):
  queries, supports, _ = _random()
  with pytest.raises(ValueError, match=f"k is {k} but there are 37 supports"):
    neighbors.nearest(queries, supports, k)


@pytest.mark.parametrize("out", [False, True])
def test_all_voters_add_up_to_the_vote(out):
  _, supports, labels = _random()
  settings = {"temperature": 0.1}
  numbers, shares = neighbors.voters(
    supports[3:9],
    supports,
    37 - out,
    excluded=np.arange(3, 9) if out else None,
    **settings,
  )
  assert (np.diff(shares, axis=1) <= 0).all()
  np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
  if out:
    assert not (numbers == np.arange(3, 9)[:, None]).any()
  votes = np.zeros((6, chunked_vote_test.NUM_CLASSES))
  np.add.at(votes, (np.arange(6)[:, None], labels[numbers]), shares)
  expected = soft_nn.soft_nn_probabilities(
    supports,
    supports,
    labels,
    num_classes=chunked_vote_test.NUM_CLASSES,
    leave_one_out=out,
    **settings,
  )
  np.testing.assert_allclose(votes, expected[3:9], atol=1e-5)


def _majority(cosines, labels, **settings):
  return neighbors.majority(
    np.array([cosines]), np.array([labels]), num_classes=4, **settings
  )[0].tolist()


def test_the_majority_wins_over_the_nearest():
  assert _majority([0.9, 0.2, 0.1], [3, 1, 1]) == [1, 3, 0, 2]
  # Even neighbors that point away count.
  assert _majority([1.0, -1.0, -1.0], [3, 1, 1])[:2] == [1, 3]
  assert _majority([0.9], [2], most=1) == [2]


def test_of_as_many_neighbors_the_more_similar_win():
  labels = [0, 1, 1, 0, 2]
  assert _majority([0.9, 0.8, 0.7, 0.5, 0.4], labels)[:2] == [1, 0]
  assert _majority([0.9, 0.8, 0.7, 0.61, 0.4], labels)[:2] == [0, 1]


def test_every_block_of_queries_is_ranked(monkeypatch):
  rng = np.random.default_rng(0)
  cosines = rng.normal(size=(11, 3))
  labels = rng.integers(0, 4, (11, 3))
  whole = neighbors.majority(cosines, labels, num_classes=4)
  monkeypatch.setattr(neighbors, "_BLOCK", 4)
  blocks = neighbors.majority(cosines, labels, num_classes=4)
  np.testing.assert_array_equal(blocks, whole)
