"""How many directions a set of embeddings spans."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


def effective_rank(embeddings: jax.Array) -> jax.Array:
  """The exponential of the entropy of the normalised singular values.

  RankMe (Garrido et al., 2022, arXiv 2210.02885), of the directions of the
  embeddings, which is what PAWS compares.

  Args:
    embeddings: [n, D]; costs an eigenvalue problem of size min(n, D).

  Returns:
    Scalar in [1, min(n, D)]: 1 when all point the same way. Not meant to be
    differentiated.

  Example:
    >>> import jax.numpy as jnp
    >>> round(float(effective_rank(jnp.eye(5)[:3])), 4)
    3.0
  """
  # Of the two products that have the same eigenvalues, the smaller one.
  directions = similarity.normalize(embeddings)
  if directions.shape[0] > directions.shape[1]:
    directions = directions.T
  gram = jnp.matmul(
    directions, directions.T, precision=jax.lax.Precision.HIGHEST
  )
  squared = jnp.linalg.eigvalsh(gram)
  # Rounding leaves about this much where there should be nothing.
  noise = gram.shape[0] * jnp.finfo(gram.dtype).eps * jnp.max(squared)
  singular = jnp.sqrt(jnp.where(squared > noise, squared, 0))
  total = jnp.sum(singular)
  shares = singular / jnp.where(total > 0, total, 1)
  return jnp.exp(-similarity.negative_entropy(shares))
