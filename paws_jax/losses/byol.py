"""The loss of bootstrap your own latent (BYOL).

Reference:
  Grill et al., Bootstrap Your Own Latent, 2020 (arXiv 2006.07733).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity

# Smallest norm by which an embedding is divided, as in the public code.
_MIN_NORM = 1e-6


def byol_loss(predictions: jax.Array, targets: jax.Array) -> jax.Array:
  """Computes squared distances between predictions and other views' targets.

  Eq. 2 of BYOL, both directions added: 4 − 2 (cos + cos) for two views. With
  more views every view but itself predicts each of the two targets, and the
  loss is twice the mean over these pairs.

  Args:
    predictions: [V·B, D], view-major, V ≥ 2; they need not be normalized.
    targets: [2B, D], of the first two views, in their order: a view's
      prediction is compared with the targets of the other views. Without
      gradient.

  Returns:
    Scalar in [0, 8], the mean over the B images, float32 or wider.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  similarity.check_views(predictions, targets)
  targets = similarity.normalize(
    jax.lax.stop_gradient(targets), min_norm=_MIN_NORM
  )
  targets = targets.reshape(2, -1, targets.shape[-1])
  predictions = similarity.normalize(predictions, min_norm=_MIN_NORM)
  predictions = predictions.reshape(-1, *targets.shape[1:])
  pairs = [
    jnp.mean(jnp.sum((predictions[view] - targets[target]) ** 2, axis=-1))
    for target in range(2)
    for view in range(predictions.shape[0])
    if view != target
  ]
  total: Any = sum(pairs)
  return 2 * total / len(pairs)
