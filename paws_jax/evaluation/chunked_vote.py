"""The vote of the supports and the nearest of them, a chunk at a time.

With 50,000 queries, 128,000 supports and 2,048 dimensions the similarities are
6.4e9 numbers. Here a batch of queries meets a chunk of supports, and a few
numbers of each query are kept from one chunk to the next: the program of a
batch is one scan over the chunks, and the supports lie on the device once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import Generic
from typing import NamedTuple
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import losses

# Supports that a batch of queries meets at once. With 1,024 queries: 16 MB of
# similarities, and as much for the labels of 1,000 classes.
CHUNK_SIZE = 4096


class Chunks(NamedTuple):
  """Supports in C chunks of m.

  Attributes:
    rows: [C, m, D], of unit length.
    labels: int [C, m]; -1 where there is no support.
    first: int [C], number of each chunk's first support.
    copies: int [C, m], number of the first support that each is a copy of.
  """

  rows: jax.Array
  labels: jax.Array
  first: jax.Array
  copies: jax.Array


_Array = TypeVar("_Array", jax.Array, np.ndarray)


class Votes(NamedTuple, Generic[_Array]):
  """Votes on n queries, and the k supports nearest to each.

  Attributes:
    probabilities: [n, K].
    cosines: [n, k], the highest first; of equal ones the first support's.
    numbers: int32 [n, k], of these supports.
    shares: [n, k], of the vote.
  """

  probabilities: _Array
  cosines: _Array
  numbers: _Array
  shares: _Array


def cut(
  supports: np.ndarray,
  labels: np.ndarray,
  chunk_size: int = CHUNK_SIZE,
  *,
  copies: np.ndarray | None = None,
) -> Chunks:
  """Puts supports on the device, in chunks of one size.

  Args:
    supports: [N, D] embeddings, at least one.
    labels: [N] integers ≥ 0.
    chunk_size: the largest.
    copies: int [N], number of the first support with the same contents; None:
      each has its own.
  """
  total = len(supports)
  if copies is None:
    copies = np.arange(total)
  num_chunks = math.ceil(total / chunk_size)
  # Of equal chunks the last has the least padding.
  size = math.ceil(total / num_chunks)
  extra = num_chunks * size - total
  rows = np.pad(np.asarray(supports), [(0, extra), (0, 0)])
  labels = np.pad(np.asarray(labels, np.int32), (0, extra), constant_values=-1)
  copies = np.pad(np.asarray(copies, np.int32), (0, extra), constant_values=-2)
  return Chunks(
    rows=_normalize(rows.reshape(num_chunks, size, -1)),
    labels=jnp.asarray(labels.reshape(num_chunks, size)),
    first=jnp.arange(num_chunks, dtype=jnp.int32) * size,
    copies=jnp.asarray(copies.reshape(num_chunks, size)),
  )


_normalize = jax.jit(losses.normalize)


@jax.jit(static_argnames=("temperature", "num_classes", "k"))
def vote(
  queries: jax.Array,
  chunks: Chunks,
  excluded: jax.Array | None = None,
  *,
  temperature: float = 1.0,
  num_classes: int = 1,
  k: int = 0,
) -> Votes[jax.Array]:
  """Soft nearest neighbors: `losses.soft_nearest_neighbours` in chunks.

  For any number of supports, without a gradient. The softmax is a running one:
  with m the largest exponent so far, Σ exp(s) y = exp(m) Σ exp(s − m) y, and
  the sum is scaled down whenever m grows (Milakov and Gimelshein, 2018, arXiv
  1805.02867).

  Args:
    queries: [n, D] embeddings.
    chunks: the supports.
    excluded: int [n], number of a support that does not vote on the query, nor
      do its copies; -1: all do. None: all do.
    temperature: τ > 0.
    num_classes: K.
    k: nearest supports to find, at most N.
  """
  queries = losses.normalize(queries)
  queries = queries.astype(jnp.promote_types(queries.dtype, chunks.rows.dtype))
  count, dtype = queries.shape[0], queries.dtype

  def add(carry: Any, chunk: Chunks) -> tuple[Any, None]:
    largest, votes, nearest = carry
    cosines = _cosines(queries, chunk, excluded)
    if k:
      nearest = _merge(nearest, cosines, chunk, k)
    exponents = cosines / temperature
    larger = jnp.maximum(largest, exponents.max(axis=-1))
    weights = jnp.exp(exponents - larger[:, None])
    # A label of -1 makes a row of zeros.
    rows = jax.nn.one_hot(chunk.labels, num_classes, dtype=dtype)
    votes = votes * jnp.exp(largest - larger)[:, None] + jnp.matmul(
      weights, rows, precision=jax.lax.Precision.HIGHEST
    )
    return (larger, votes, nearest), None

  start = (
    # Below every exponent, but finite: a chunk may hold no voter.
    jnp.full(count, -2 / temperature, dtype),
    jnp.zeros((count, num_classes), dtype),
    (jnp.full((count, k), -jnp.inf, dtype), jnp.zeros((count, k), jnp.int32)),
  )
  (largest, votes, (cosines, numbers)), _ = jax.lax.scan(add, start, chunks)
  # Every weight is in one column: they sum to the softmax's denominator.
  total = votes.sum(axis=-1, keepdims=True)
  shares = jnp.exp(cosines / temperature - largest[:, None]) / total
  return Votes(votes / total, cosines, numbers, shares)


def _cosines(
  queries: jax.Array, chunk: Chunks, excluded: jax.Array | None
) -> jax.Array:
  """[n, m]; -inf where there is no support, or where it does not vote."""
  cosines = jnp.matmul(
    queries, chunk.rows.T, precision=jax.lax.Precision.HIGHEST
  )
  silent = chunk.labels[None, :] < 0
  if excluded is not None:
    silent |= excluded[:, None] == chunk.copies[None, :]
  return jnp.where(silent, -jnp.inf, cosines)


def _merge(
  nearest: tuple[jax.Array, jax.Array],
  cosines: jax.Array,
  chunk: Chunks,
  k: int,
) -> tuple[jax.Array, jax.Array]:
  """The k nearest of those so far and of a chunk."""
  numbers = chunk.first + jnp.arange(cosines.shape[1], dtype=jnp.int32)
  numbers = jnp.broadcast_to(numbers[None, :], cosines.shape)
  # Earlier ones come first: of equals `top_k` takes the first.
  cosines = jnp.concatenate([nearest[0], cosines], axis=1)
  numbers = jnp.concatenate([nearest[1], numbers], axis=1)
  cosines, places = jax.lax.top_k(cosines, k)
  return cosines, jnp.take_along_axis(numbers, places, axis=1)


def in_batches(
  queries: np.ndarray,
  chunks: Chunks,
  *,
  batch_size: int,
  excluded: np.ndarray | None = None,
  **settings: Any,
) -> Votes[np.ndarray]:
  """Calls `vote` for batches of queries of one size.

  Args:
    queries: [n, D] embeddings, at least one.
    chunks: the supports.
    batch_size: queries at once; changes nothing but memory and rounding.
    excluded: see `vote`.
    **settings: of `vote`.

  Returns:
    `Votes` on the host, float32 (float64 if the embeddings are, in x64).
  """
  function = functools.partial(vote, **settings)
  parts = list(_padded(function, queries, chunks, batch_size, excluded))
  return Votes(*map(np.concatenate, zip(*parts, strict=True)))


def _padded(
  function: Callable[..., Votes[jax.Array]],
  queries: np.ndarray,
  chunks: Chunks,
  batch_size: int,
  excluded: np.ndarray | None,
) -> Iterator[Votes[np.ndarray]]:
  """Results of batches of one size, without those of the padding."""
  batch_size = min(batch_size, len(queries))
  for first in range(0, len(queries), batch_size):
    batch = queries[first : first + batch_size]
    count = len(batch)
    extra = (0, batch_size - count)
    silent = None
    if excluded is not None:
      silent = np.asarray(excluded[first : first + batch_size], np.int32)
      silent = np.pad(silent, extra, constant_values=-1)
    result = function(np.pad(batch, [extra, (0, 0)]), chunks, silent)
    yield Votes(*(np.asarray(x)[:count] for x in result))
