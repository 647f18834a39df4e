"""Soft nearest neighbors: cosine similarities, votes, sharpening, entropies.

All computation is in float32 or wider.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from paws_jax.losses import blocks

# Smallest norm by which an embedding is divided.
MIN_NORM = 1e-12

AxisName = str | Sequence[str] | None


def normalize(
  embeddings: jax.Array, *, min_norm: float = MIN_NORM
) -> jax.Array:
  """Scales rows to unit length: `x / max(|x|, 1e-12)`.

  Args:
    embeddings: [..., D], any float dtype; computed in float32 or wider.
    min_norm: smallest norm by which a row is divided, instead of 1e-12.

  Returns:
    [..., D]. A zero row stays zero, with a finite gradient.
  """
  embeddings = at_least_float32(embeddings)
  squared = jnp.sum(embeddings**2, axis=-1, keepdims=True)
  # sqrt has an infinite slope at 0: its argument is replaced there.
  norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
  return embeddings / jnp.maximum(norm, min_norm)


def cosine_similarities(queries: jax.Array, keys: jax.Array) -> jax.Array:
  """Computes cosines [n, m] of all `queries` [n, D] and `keys` [m, D]."""
  return dot_products(normalize(queries), normalize(keys))


def dot_products(rows: jax.Array, others: jax.Array) -> jax.Array:
  """Computes all products [..., n, m] of rows [..., n, D] and [m, D]."""
  return jnp.matmul(rows, others.T, precision=jax.lax.Precision.HIGHEST)


def label_rows(
  labels: jax.Array, class_ids: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
  """Builds the smoothed one-hot rows of a support set.

  Args:
    labels: [N] integers, class of each support image.
    class_ids: [C] distinct integers, the class of each column.
    smoothing: ε in [0, 1): a row holds 1 − ε + ε/C at its class, ε/C elsewhere
      (PAWS, section 5, 2021).

  Returns:
    [N, C] float32 (float64 where that is the default). A label that is not
    among `class_ids` has no column: its row holds only ε/C.
  """
  one_hot = (labels[:, None] == class_ids[None, :]).astype(float)
  return (1 - smoothing) * one_hot + smoothing / class_ids.shape[0]


def soft_nearest_neighbours(
  queries: jax.Array,
  supports: jax.Array,
  support_labels: jax.Array,
  *,
  temperature: float,
  num_blocks: int = 1,
) -> jax.Array:
  """Predicts classes by a vote of the supports, weighted by similarity.

  `softmax(cosine(queries, supports) / temperature) @ support_labels`: PAWS,
  section 3 (2021).

  Args:
    queries: [n, D] embeddings; they need not be normalized.
    supports: [N, D] embeddings.
    support_labels: [N, C] label rows.
    temperature: τ > 0; small values make the nearest support decide.
    num_blocks: blocks of queries whose similarities are computed at a time.

  Returns:
    [n, C] float32 or wider; rows sum to 1 where the label rows do.

  Raises:
    ValueError: the shapes are inconsistent.

  Examples:
    >>> import jax.numpy as jnp
    >>> queries = jnp.array([[1.0, 0.0]])
    >>> supports = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    >>> probs = soft_nearest_neighbours(
    ...   queries, supports, jnp.eye(2), temperature=0.1
    ... )
    >>> bool(probs[0, 0] > 0.999)
    True
  """
  check_supports(queries, supports, support_labels)

  def vote(queries: jax.Array) -> jax.Array:
    similarities = cosine_similarities(queries, supports)
    weights = vote_weights(similarities, temperature=temperature)
    return jnp.matmul(
      weights,
      support_labels.astype(weights.dtype),
      precision=jax.lax.Precision.HIGHEST,
    )

  return blocks.in_blocks(vote, queries, num_blocks=num_blocks)


def vote_weights(similarities: jax.Array, *, temperature: float) -> jax.Array:
  """Computes the weights of the supports in a soft nearest-neighbor vote.

  Args:
    similarities: [n, N] cosines.
    temperature: τ > 0.

  Returns:
    [n, N]; rows sum to 1.
  """
  return jax.nn.softmax(similarities / temperature, axis=-1)


def sharpen(probs: jax.Array, *, temperature: float) -> jax.Array:
  """Raises probabilities to the power 1/temperature and renormalizes the rows.

  ρ of PAWS, section 3 (2021).

  Args:
    probs: [..., C], not negative, each row with a positive entry.
    temperature: T > 0; 1 changes nothing, small values tend to one-hot rows.

  Returns:
    [..., C]; rows sum to 1.
  """
  probs = at_least_float32(probs)
  # The largest entry cancels in the ratio, and keeps the powers of many small
  # probabilities from underflowing to zero.
  largest = jax.lax.stop_gradient(jnp.max(probs, axis=-1, keepdims=True))
  powers = (probs / largest) ** (1 / temperature)
  return powers / jnp.sum(powers, axis=-1, keepdims=True)


def cross_entropy(targets: jax.Array, probs: jax.Array) -> jax.Array:
  """Cross-entropy −Σ t log p of each row, in nats.

  Where a target is 0 its term is 0 with zero gradient, even at p = 0; elsewhere
  log p is that of at least the smallest normal number.

  Args:
    targets: [..., C], not negative.
    probs: [..., C], in [0, 1].

  Returns:
    [...] values ≥ 0.
  """
  tiny = jnp.finfo(probs.dtype).tiny
  safe = jnp.where(targets > 0, jnp.maximum(probs, tiny), 1)
  return -jnp.sum(targets * jnp.log(safe), axis=-1)


def negative_entropy(probs: jax.Array) -> jax.Array:
  """Computes Σ p log p of each row, [..., C] -> [...] ≤ 0, with 0 log 0 = 0."""
  safe = jnp.where(probs > 0, probs, 1)
  return jnp.sum(probs * jnp.log(safe), axis=-1)


def at_least_float32(x: jax.Array) -> jax.Array:
  """Casts float16 and bfloat16 to float32, but not float32 and float64."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def check_supports(
  queries: jax.Array, supports: jax.Array, support_labels: jax.Array
) -> None:
  """Refuses inconsistent queries [n, D], supports [N, D] and labels [N, C].

  Raises:
    ValueError: the shapes are inconsistent; names them.
  """
  if queries.ndim != 2 or supports.ndim != 2 or support_labels.ndim != 2:
    raise ValueError(
      "queries, supports and support_labels must have two dimensions; got "
      f"shapes {queries.shape}, {supports.shape} and {support_labels.shape}."
    )
  if queries.shape[1] != supports.shape[1]:
    raise ValueError(
      f"queries have {queries.shape[1]} dimensions and supports "
      f"{supports.shape[1]}: both must come from the same embedding."
    )
  if supports.shape[0] != support_labels.shape[0]:
    raise ValueError(
      f"{supports.shape[0]} supports but {support_labels.shape[0]} label rows: "
      "give one row per support."
    )


def check_pairs(
  first: jax.Array, second: jax.Array, *, names: tuple[str, str]
) -> None:
  """Refuses arrays that are not both [n, D].

  Raises:
    ValueError: names them and their shapes.
  """
  if first.ndim != 2 or first.shape != second.shape:
    raise ValueError(
      f"{names[0]} and {names[1]} must both be [n, D]; got shapes "
      f"{first.shape} and {second.shape}."
    )


def check_dimensions(
  rows: jax.Array, others: jax.Array, *, names: tuple[str, str]
) -> None:
  """Refuses arrays that are not [n, D] and [m, D].

  Raises:
    ValueError: names them and their shapes.
  """
  if rows.ndim != 2 or others.ndim != 2 or rows.shape[1] != others.shape[1]:
    raise ValueError(
      f"{names[0]} and {names[1]} must be [n, D] and [m, D]; got shapes "
      f"{rows.shape} and {others.shape}."
    )


def check_views(
  predictions: jax.Array, targets: jax.Array, *, num_views: int | None = None
) -> None:
  """Refuses arrays that are not [V·B, D] and [2B, D] with V ≥ 2.

  Args:
    predictions: the first array.
    targets: the second array.
    num_views: V; None: any.

  Raises:
    ValueError: the shapes are inconsistent; names them.
  """
  check_dimensions(predictions, targets, names=("predictions", "targets"))
  rows, num_targets = predictions.shape[0], targets.shape[0]
  views, rest = divmod(2 * rows, max(num_targets, 1))
  if num_targets % 2 or rest or views < 2 or num_views not in (None, views):
    raise ValueError(
      f"{rows} predictions do not belong to {num_targets} targets: targets are "
      "those of two views of each image, predictions those of "
      f"{num_views or 'two or more'} views."
    )


def same_rows(
  first: int | jax.Array, num_rows: int, num_keys: int
) -> jax.Array:
  """Returns bool [num_rows, num_keys], True where row `first` + i is key j."""
  return are_keys(first + jnp.arange(num_rows), num_keys)


def are_keys(places: jax.Array, num_keys: int) -> jax.Array:
  """Returns bool [n, num_keys], True where place i [n] is that of key j."""
  return places[:, None] == jnp.arange(num_keys)[None, :]
