"""The loss of simple Siamese networks (SimSiam).

Reference:
  Chen and He, Exploring Simple Siamese Representation Learning, 2021
  (arXiv 2011.10566).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity

# Smallest norm by which an embedding is divided, as in the public code.
_MIN_NORM = 1e-8


def simsiam_loss(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Computes the negative cosine of predictions and other views' targets.

  The mean over the two directions (SimSiam, eq. 4).

  Args:
    predictions: [2B, D], view-major; they need not be normalized.
    targets: [2B, D], in the same order: the first view's predictions are
      compared with the second one's targets. Without gradient.

  Returns:
    Scalar in [−1, 1], the mean over the B images, float32 or wider.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  similarity.check_views(predictions, targets, num_views=2)
  predictions = similarity.normalize(predictions, min_norm=_MIN_NORM)
  targets = jax.lax.stop_gradient(
    similarity.normalize(targets, min_norm=_MIN_NORM)
  )
  first, second = jnp.split(targets, 2)
  swapped = jnp.concatenate([second, first])
  return -jnp.mean(jnp.sum(predictions * swapped, axis=-1))
