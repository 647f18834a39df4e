"""Votes chunk by chunk, against the entire matrix of similarities."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import losses
from paws_jax.evaluation import chunked_vote
from paws_jax.evaluation import neighbors
from paws_jax.evaluation import soft_nn

pytestmark = pytest.mark.unoptimized

NUM_CLASSES = 5
# Chunks of 1, some that do not divide the 37 supports, and one of all.
CHUNKS = (1, 5, 36, 37, 4096)


def random_arrays(num_queries=23, num_supports=37, seed=0):
  rng = np.random.default_rng(seed)
  queries = rng.normal(size=(num_queries, 6)).astype(np.float32)
  supports = rng.normal(size=(num_supports, 6)).astype(np.float32)
  return queries, supports, rng.integers(0, NUM_CLASSES, num_supports)


def _vote(*arrays, temperature=0.1, **settings):
  return soft_nn.soft_nn_probabilities(
    *arrays, num_classes=NUM_CLASSES, temperature=temperature, **settings
  )


def test_of_one_chunk_the_vote_is_that_of_training():
  queries, supports, labels = random_arrays()
  rows = jnp.eye(NUM_CLASSES)[labels]
  expected = jax.jit(losses.soft_nearest_neighbours)(
    queries, supports, rows, temperature=0.1
  )
  votes = _vote(queries, supports, labels)
  np.testing.assert_allclose(votes, expected, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("chunk_size", CHUNKS)
# At the lowest almost all exponents of a query underflow.
@pytest.mark.parametrize("temperature", [0.1, 0.001])
def test_chunks_change_nothing(chunk_size, temperature):
  queries, supports, labels = random_arrays()
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
  _, supports, labels = random_arrays()
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
  queries, supports, labels = random_arrays()
  arrays = [queries, supports]
  arrays[wide] = arrays[wide].astype(np.float64)
  with jax.enable_x64(True):
    votes = _vote(*arrays, labels)
    cosines, _ = neighbors.nearest(*arrays, 3)
  assert votes.dtype == cosines.dtype == np.float64


def test_the_whole_matrix_is_never_there():
  # Shapes alone: ImageNet's, a thousandth of the images embedded.
  batch, total, dim, size = 1024, 128_000, 2048, 4000
  chunks = chunked_vote.Chunks(
    rows=jax.ShapeDtypeStruct((total // size, size, dim), jnp.float32),
    labels=jax.ShapeDtypeStruct((total // size, size), jnp.int32),
    first=jax.ShapeDtypeStruct((total // size,), jnp.int32),
    copies=jax.ShapeDtypeStruct((total // size, size), jnp.int32),
  )
  queries = jax.ShapeDtypeStruct((batch, dim), jnp.float32)
  vote = chunked_vote.vote.lower(
    queries, chunks, temperature=0.1, num_classes=1000
  )
  nearest = chunked_vote.vote.lower(queries, chunks, k=20)
  for lowered in (vote, nearest):
    # A chunk of supports, a few of similarities; their matrix has 524 MB.
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    assert 1e6 < temporary < 200e6
