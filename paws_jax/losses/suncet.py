"""SuNCEt: supervised noise-contrastive estimation (Assran et al., 2020)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


def suncet_loss(
  embeddings: jax.Array,
  labels: jax.Array,
  *,
  temperature: float,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Supervised noise-contrastive loss of a labelled batch (SuNCEt, 2020).

  Every image is classified by a soft nearest-neighbor vote of all the others;
  the loss is the cross-entropy of its label row. With one-hot rows that is
  −log(Σ same class e^{s/τ} / Σ all others e^{s/τ}).

  Args:
    embeddings: [n, D], this device's.
    labels: [n, C] label rows, this device's.
    temperature: τ > 0.
    axis_name: mesh axes over which the batch is spread.

  Returns:
    Scalar ≥ 0, the mean over the images of all devices. An image that is the
    only one of its class contributes about −log of the smallest number.

  Raises:
    ValueError: when the shapes do not fit each other.
  """
  similarity.check_supports(embeddings, embeddings, labels)
  # Before labels are put beside them: bfloat16 would round the labels too.
  embeddings = similarity.at_least_float32(embeddings)
  keys, key_labels, first = embeddings, labels, 0
  if axis_name is not None:
    # One gather for both; its transpose is the reduce-scatter.
    both = jnp.concatenate([embeddings, labels.astype(embeddings.dtype)], -1)
    both = jax.lax.all_gather(both, axis_name, tiled=True)
    keys, key_labels = jnp.split(both, [embeddings.shape[-1]], axis=-1)
    first = jax.lax.axis_index(axis_name) * embeddings.shape[0]
  each = suncet_rows(
    embeddings, labels, keys, key_labels, first=first, temperature=temperature
  )
  loss = jnp.mean(each)
  return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def suncet_rows(
  queries: jax.Array,
  labels: jax.Array,
  keys: jax.Array,
  key_labels: jax.Array,
  *,
  first: int | jax.Array,
  temperature: float,
) -> jax.Array:
  """The terms of `suncet_loss`, where all embeddings are at hand.

  Args:
    queries: [n, D], some of the keys.
    labels: [n, C] their label rows.
    keys: [N, D], the whole batch.
    key_labels: [N, C].
    first: which key the first query is; the others follow it. A query beyond
      the last key is compared with all of them.
    temperature: τ > 0.

  Returns:
    [n] values ≥ 0.
  """
  similarities = similarity.cosine_similarities(queries, keys) / temperature
  itself = similarity.same_rows(first, queries.shape[0], keys.shape[0])
  weights = jax.nn.softmax(jnp.where(itself, -jnp.inf, similarities), axis=-1)
  probs = jnp.matmul(
    weights,
    key_labels.astype(weights.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
  return similarity.cross_entropy(labels.astype(probs.dtype), probs)
