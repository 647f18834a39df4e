"""Votes and neighbours, chunk by chunk, against the whole matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from paws_jax.evaluation import neighbours

NUM_CLASSES = 5
# Chunks of 1, some that do not divide the 37 supports, and one of all.
CHUNKS = (1, 5, 36, 37, 4096)


def _random(num_queries=23, num_supports=37, seed=0):
  rng = np.random.default_rng(seed)
  queries = rng.normal(size=(num_queries, 6)).astype(np.float32)
  supports = rng.normal(size=(num_supports, 6)).astype(np.float32)
  return queries, supports, rng.integers(0, NUM_CLASSES, num_supports)


def _vote(*arrays, temperature=0.1, **settings):
  return neighbours.vote(
    *arrays, num_classes=NUM_CLASSES, temperature=temperature, **settings
  )


def _cosines(queries, supports):
  queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
  return queries @ (supports / np.linalg.norm(supports, axis=1)[:, None]).T


@pytest.mark.parametrize("chunk_size", CHUNKS)
# At the lowest almost all exponents of a query underflow.
@pytest.mark.parametrize("temperature", [0.1, 0.001])
def test_chunks_change_nothing(chunk_size, temperature):
  queries, supports, labels = _random()
  expected = losses.soft_nearest_neighbours(
    queries, supports, jnp.eye(NUM_CLASSES)[labels], temperature=temperature
  )
  votes = _vote(
    queries,
    supports,
    labels,
    temperature=temperature,
    chunk_size=chunk_size,
    batch_size=10,
  )
  assert votes.dtype == np.float32
  np.testing.assert_allclose(votes, expected, rtol=0, atol=2e-4)
  np.testing.assert_allclose(votes.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("chunk_size", CHUNKS)
def test_leaving_one_out_equals_voting_without_it(chunk_size):
  _, supports, labels = _random()
  votes = _vote(
    supports,
    supports,
    labels,
    chunk_size=chunk_size,
    batch_size=10,
    leave_one_out=True,
  )
  for i in (0, 4, 5, 36):
    others = np.arange(37) != i
    alone = _vote(supports[i : i + 1], supports[others], labels[others])
    np.testing.assert_allclose(votes[i], alone[0], atol=1e-5)


def test_supports_far_from_a_query_vote_too():
  # All cosines are -1: a padded chunk's zeros would outweigh them.
  queries = np.float32([[1, 0]])
  supports = np.float32([[-1, 0], [-2, 0], [-3, 0]])
  votes = _vote(
    queries, supports, np.array([0, 1, 1]), temperature=0.005, chunk_size=2
  )
  np.testing.assert_allclose(votes[0], [1 / 3, 2 / 3, 0, 0, 0], rtol=1e-5)


@pytest.mark.parametrize("wide", [0, 1])
def test_in_x64_the_wider_dtype_counts(wide):
  queries, supports, labels = _random()
  arrays = [queries, supports]
  arrays[wide] = arrays[wide].astype(np.float64)
  with jax.enable_x64(True):
    votes = _vote(*arrays, labels)
    cosines, _ = neighbours.nearest(*arrays, 3)
  assert votes.dtype == cosines.dtype == np.float64


def test_the_whole_matrix_is_never_there():
  # Shapes alone: ImageNet's, a thousandth of the images embedded.
  batch, total, dim, size = 1024, 128_000, 2048, 4000
  chunks = neighbours._Chunks(
    rows=jax.ShapeDtypeStruct((total // size, size, dim), jnp.float32),
    labels=jax.ShapeDtypeStruct((total // size, size), jnp.int32),
    first=jax.ShapeDtypeStruct((total // size,), jnp.int32),
  )
  queries = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
  vote = neighbours._vote.lower(
    queries,
    0,
    chunks,
    temperature=0.1,
    num_classes=1000,
    leave_one_out=False,
  )
  nearest = neighbours._nearest.lower(queries, chunks, k=20)
  for lowered in (vote, nearest):
    # A chunk of supports, a few of similarities; their matrix has 524 MB.
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    assert 1e6 < temporary < 200e6


@pytest.mark.parametrize("chunk_size", CHUNKS)
@pytest.mark.parametrize("k", [1, 6, 37])
def test_neighbours_are_those_of_the_whole_matrix(chunk_size, k):
  queries, supports, _ = _random()
  cosines, numbers = neighbours.nearest(
    queries, supports, k, chunk_size=chunk_size, batch_size=10
  )
  everything = _cosines(queries, supports)
  order = np.argsort(-everything, axis=1)[:, :k]
  np.testing.assert_array_equal(numbers, order)
  expected = np.take_along_axis(everything, order, axis=1)
  np.testing.assert_allclose(cosines, expected, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [2, 3, 7])
def test_of_equal_neighbours_the_first_comes_first(chunk_size):
  supports = np.tile(np.float32([[1, 0], [0, 1]]), (4, 1))
  _, numbers = neighbours.nearest(
    np.float32([[3, 0]]), supports, 5, chunk_size=chunk_size
  )
  np.testing.assert_array_equal(numbers, [[0, 2, 4, 6, 1]])


@pytest.mark.parametrize("k", [0, 38])
def test_more_neighbours_than_supports_are_refused(k):
  queries, supports, _ = _random()
  with pytest.raises(ValueError, match=f"k is {k} but there are 37 supports"):
    neighbours.nearest(queries, supports, k)


def _majority(cosines, labels, **settings):
  return neighbours.majority(
    np.array([cosines]), np.array([labels]), num_classes=4, **settings
  )[0].tolist()


def test_the_majority_wins_over_the_nearest():
  assert _majority([0.9, 0.2, 0.1], [3, 1, 1]) == [1, 3, 0, 2]
  # Even neighbours that point away count.
  assert _majority([1.0, -1.0, -1.0], [3, 1, 1])[:2] == [1, 3]
  assert _majority([0.9], [2], most=1) == [2]


def test_of_as_many_neighbours_the_more_similar_win():
  labels = [0, 1, 1, 0, 2]
  assert _majority([0.9, 0.8, 0.7, 0.5, 0.4], labels)[:2] == [1, 0]
  assert _majority([0.9, 0.8, 0.7, 0.61, 0.4], labels)[:2] == [0, 1]


def test_every_block_of_queries_is_ranked(monkeypatch):
  rng = np.random.default_rng(0)
  cosines = rng.normal(size=(11, 3))
  labels = rng.integers(0, 4, (11, 3))
  whole = neighbours.majority(cosines, labels, num_classes=4)
  monkeypatch.setattr(neighbours, "_BLOCK", 4)
  blocks = neighbours.majority(cosines, labels, num_classes=4)
  np.testing.assert_array_equal(blocks, whole)
