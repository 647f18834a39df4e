"""SuNCEt, supervised noise-contrastive estimation.

Reference:
  Assran et al., Supervision Accelerates Pre-training in Contrastive
  Semi-Supervised Learning of Visual Representations, 2020 (arXiv 2006.10803).
"""

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
  """Computes the supervised noise-contrastive loss of a labelled batch.

  Every image is classified by a soft nearest-neighbor vote of all the others;
  the loss is the cross-entropy of its label row. With one-hot rows that is
  −log(Σ same class e^{s/τ} / Σ all others e^{s/τ}).

  Args:
    embeddings: [n, D], this device's.
    labels: [n, C] label rows, this device's.
    temperature: τ > 0.
    axis_name: mesh axes over which the batch is spread.

  Returns:
    Scalar ≥ 0, the mean over the images of all devices. The only image of a
    class contributes about −log of the smallest float.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  similarity.check_supports(embeddings, embeddings, labels)
  # Cast before concatenation: bfloat16 would round the labels too.
  embeddings = similarity.at_least_float32(embeddings)
  keys, key_labels = embeddings, labels
  first: int | jax.Array = 0
  if axis_name is not None:
    # One all-gather for both, whose transpose is one reduce-scatter.
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
  """Computes the terms of `suncet_loss` from all embeddings.

  Args:
    queries: [n, D], some of the keys.
    labels: [n, C], their label rows.
    keys: [N, D], the batch of all devices.
    key_labels: [N, C].
    first: row of the first query in `keys`; the others follow it. A query
      beyond the last key is compared with all keys.
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
