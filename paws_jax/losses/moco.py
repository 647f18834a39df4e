"""The contrastive loss of momentum contrast (MoCo).

References:
  He et al., Momentum Contrast for Unsupervised Visual Representation Learning,
  2020 (arXiv 1911.05722); Chen et al., Improved Baselines with Momentum
  Contrastive Learning, 2020 (arXiv 2003.04297).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


def moco_loss(
  queries: jax.Array, keys: jax.Array, queue: jax.Array, *, temperature: float
) -> jax.Array:
  """Computes the cross-entropy of each query's own key among a queue.

  The other keys of the batch are no negatives (InfoNCE, eq. 1 of MoCo).

  Args:
    queries: [B, D] embeddings; they need not be normalized.
    keys: [B, D], row i belongs to query i; without gradient.
    queue: [K, D] unit rows, keys of earlier steps; without gradient.
    temperature: τ > 0, divides the cosines.

  Returns:
    Scalar ≥ 0, the mean over the rows, float32 or wider.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  similarity.check_pairs(queries, keys, names=("queries", "keys"))
  similarity.check_dimensions(queries, queue, names=("queries", "queue"))
  queries = similarity.normalize(queries)
  keys, queue = jax.lax.stop_gradient(
    (similarity.normalize(keys), similarity.at_least_float32(queue))
  )
  own = jnp.sum(queries * keys, axis=-1, keepdims=True)
  others = similarity.dot_products(queries, queue)
  logits = jnp.concatenate([own, others], axis=-1) / temperature
  return -jnp.mean(jax.nn.log_softmax(logits, axis=-1)[:, 0])
