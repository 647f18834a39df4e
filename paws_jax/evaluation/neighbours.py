"""Nearest labelled images, a chunk of them at a time.

With 50,000 queries, 128,000 supports and 2,048 dimensions the similarities are
6.4e9 numbers. Here a batch of queries meets a chunk of supports, and what is
kept from one chunk to the next is a few numbers for each query: the program of
a batch is one scan over the chunks, and the supports lie on the device once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import losses

# Supports that a batch of queries meets at once. With 1,024 queries: 16 MB of
# similarities, and as much for the labels of 1,000 classes.
CHUNK_SIZE = 4096

# Similarities of a block of queries are turned into ranks on the host.
_BLOCK = 4096


class _Chunks(NamedTuple):
  """Supports, cut up; C chunks of m.

  Attributes:
    rows: [C, m, D], of unit length.
    labels: int [C, m]; -1 where there is no support.
    first: int [C], number of each chunk's first support.
  """

  rows: jax.Array
  labels: jax.Array
  first: jax.Array


def vote(
  queries: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  *,
  num_classes: int,
  temperature: float,
  batch_size: int = 1024,
  chunk_size: int = CHUNK_SIZE,
  leave_one_out: bool = False,
) -> np.ndarray:
  """Soft nearest neighbours; the maths are `losses.soft_nearest_neighbours`.

  The softmax over the supports is a running one: with m the largest exponent so
  far, Σ exp(s) y = exp(m) Σ exp(s − m) y, and the sum is scaled down whenever m
  grows (Milakov and Gimelshein, 2018, arXiv 1805.02867).

  Args:
    queries: [n, D] embeddings.
    supports: [N, D] embeddings, at least one.
    support_labels: [N] integers in [0, num_classes).
    num_classes: K.
    temperature: τ > 0.
    batch_size: queries at once; changes nothing but memory and rounding.
    chunk_size: supports at once; likewise.
    leave_one_out: query i does not vote for itself; queries are the supports.

  Returns:
    [n, K] on the host, float32 (float64 if the embeddings are, in x64).
  """
  chunks = _cut(supports, support_labels, chunk_size)
  votes = _in_batches(
    lambda batch, first: _vote(
      batch,
      first,
      chunks,
      temperature=temperature,
      num_classes=num_classes,
      leave_one_out=leave_one_out,
    ),
    queries,
    batch_size,
  )
  return np.concatenate(list(votes))


def nearest(
  queries: np.ndarray,
  supports: np.ndarray,
  k: int,
  *,
  batch_size: int = 1024,
  chunk_size: int = CHUNK_SIZE,
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the k most similar supports of each query, by cosine.

  Args:
    queries: [n, D] embeddings.
    supports: [N, D] embeddings.
    k: from 1 to N.
    batch_size: queries at once; changes nothing but memory and rounding.
    chunk_size: supports at once; likewise.

  Returns:
    (cosines [n, k], numbers of the supports int32 [n, k]), the most similar
    first; of equal ones the support that comes first.

  Raises:
    ValueError: for a k that the supports do not have.
  """
  if not 1 <= k <= len(supports):
    raise ValueError(
      f"k is {k} but there are {len(supports)} supports: give a k from 1 to "
      "their number."
    )
  chunks = _cut(supports, np.zeros(len(supports), np.int32), chunk_size)
  found = _in_batches(
    lambda batch, first: _nearest(batch, chunks, k=k), queries, batch_size
  )
  cosines, numbers = zip(*found, strict=True)
  return np.concatenate(cosines), np.concatenate(numbers)


def majority(
  cosines: np.ndarray,
  neighbour_labels: np.ndarray,
  *,
  num_classes: int,
  most: int = 5,
) -> np.ndarray:
  """Ranks the classes by how many of the k nearest supports have them.

  Of classes with as many neighbours the one with the higher sum of cosines
  wins; of those without any, which come last, the lower number.

  Args:
    cosines: [n, k] of the neighbours.
    neighbour_labels: [n, k] integers in [0, num_classes).
    num_classes: K.
    most: classes to give.

  Returns:
    int [n, min(most, K)], the best class first.
  """
  ranks = []
  k = cosines.shape[1]
  for first in range(0, len(cosines), _BLOCK):
    labels = neighbour_labels[first : first + _BLOCK]
    rows = np.arange(len(labels))[:, None]
    scores = np.zeros((len(labels), num_classes))
    # A neighbour counts 1; a cosine, from -1 to 1, adds less than 1 / 2k, so
    # that all of a class's together never make up for a neighbour.
    np.add.at(
      scores,
      (rows, labels),
      1 + cosines[first : first + _BLOCK].astype(np.float64) / (4 * k),
    )
    order = np.argsort(-scores, axis=-1, kind="stable")
    ranks.append(order[:, :most])
  return np.concatenate(ranks)


def _cut(supports: np.ndarray, labels: np.ndarray, chunk_size: int) -> _Chunks:
  """Puts the supports on the device, in chunks of one size."""
  total = len(supports)
  num_chunks = math.ceil(total / chunk_size)
  # Of equal chunks the last has the least padding.
  size = math.ceil(total / num_chunks)
  extra = num_chunks * size - total
  rows = np.pad(np.asarray(supports), [(0, extra), (0, 0)])
  labels = np.pad(np.asarray(labels, np.int32), (0, extra), constant_values=-1)
  return _Chunks(
    rows=_normalise(rows.reshape(num_chunks, size, -1)),
    labels=jnp.asarray(labels.reshape(num_chunks, size)),
    first=jnp.arange(num_chunks, dtype=jnp.int32) * size,
  )


_normalise = jax.jit(losses.normalize)


def _in_batches(
  function: Callable[[np.ndarray, int], Any],
  queries: np.ndarray,
  batch_size: int,
) -> Iterator[Any]:
  """Results of batches of one size, without what is padding."""
  batch_size = min(batch_size, len(queries))
  for first in range(0, len(queries), batch_size):
    batch = queries[first : first + batch_size]
    count = len(batch)
    padded = np.pad(batch, [(0, batch_size - count), (0, 0)])
    result = function(padded, first)
    yield jax.tree.map(lambda x, count=count: np.asarray(x)[:count], result)


def _prepared(queries: jax.Array, chunks: _Chunks) -> jax.Array:
  """Of unit length, in a dtype that similarities to the supports have."""
  queries = losses.normalize(queries)
  return queries.astype(jnp.promote_types(queries.dtype, chunks.rows.dtype))


def _cosines(queries: jax.Array, chunk: _Chunks) -> jax.Array:
  """[b, m]; -inf where there is no support."""
  cosines = jnp.matmul(
    queries, chunk.rows.T, precision=jax.lax.Precision.HIGHEST
  )
  return jnp.where(chunk.labels[None, :] < 0, -jnp.inf, cosines)


@jax.jit(static_argnames=("temperature", "num_classes", "leave_one_out"))
def _vote(
  queries: jax.Array,
  first: int,
  chunks: _Chunks,
  *,
  temperature: float,
  num_classes: int,
  leave_one_out: bool,
) -> jax.Array:
  """Class votes of a batch of queries; row i is query `first` + i: [b, K]."""
  queries = _prepared(queries, chunks)
  rows = first + jnp.arange(queries.shape[0])

  def add(carry, chunk):
    largest, votes = carry
    exponents = _cosines(queries, chunk) / temperature
    if leave_one_out:
      numbers = chunk.first + jnp.arange(chunk.labels.shape[0])
      itself = rows[:, None] == numbers[None, :]
      exponents = jnp.where(itself, -jnp.inf, exponents)
    larger = jnp.maximum(largest, exponents.max(axis=-1))
    weights = jnp.exp(exponents - larger[:, None])
    # A label of -1 makes a row of zeros.
    one_hot = jax.nn.one_hot(chunk.labels, num_classes, dtype=votes.dtype)
    votes = votes * jnp.exp(largest - larger)[:, None] + jnp.matmul(
      weights, one_hot, precision=jax.lax.Precision.HIGHEST
    )
    return (larger, votes), None

  # Below every exponent, but finite: a chunk may hold nothing but the query.
  start = jnp.full(queries.shape[0], -2 / temperature, queries.dtype)
  votes = jnp.zeros((queries.shape[0], num_classes), queries.dtype)
  (_, votes), _ = jax.lax.scan(add, (start, votes), chunks)
  # Every weight is in one column: they sum to the softmax's denominator.
  return votes / votes.sum(axis=-1, keepdims=True)


@jax.jit(static_argnames=("k",))
def _nearest(
  queries: jax.Array, chunks: _Chunks, *, k: int
) -> tuple[jax.Array, jax.Array]:
  """Cosines and numbers of the k nearest supports of a batch: [b, k] each."""
  queries = _prepared(queries, chunks)
  shape = (queries.shape[0], chunks.labels.shape[1])

  def merge(carry, chunk):
    numbers = chunk.first + jnp.arange(shape[1], dtype=jnp.int32)
    # What was found before comes first: of equals `top_k` takes the first.
    cosines, numbers = (
      jnp.concatenate(pair, axis=1)
      for pair in zip(
        carry,
        (
          _cosines(queries, chunk),
          jnp.broadcast_to(numbers[None, :], shape),
        ),
        strict=True,
      )
    )
    cosines, places = jax.lax.top_k(cosines, k)
    return (cosines, jnp.take_along_axis(numbers, places, axis=1)), None

  start = (
    jnp.full((shape[0], k), -jnp.inf, queries.dtype),
    jnp.zeros((shape[0], k), jnp.int32),
  )
  found, _ = jax.lax.scan(merge, start, chunks)
  return found
