"""The effective rank of a set of embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


def effective_rank(embeddings: jax.Array) -> jax.Array:
  """Computes the exponential of the entropy of the singular values.

  This is RankMe (Garrido et al., 2022, arXiv 2210.02885) of the directions of
  the embeddings, as PAWS compares directions.

  Args:
    embeddings: [n, D]; the cost is an eigenvalue problem of size min(n, D).

  Returns:
    Scalar in [1, min(n, D)]: 1 when all have the same direction. It is not
    meant to be differentiated.

  Examples:
    >>> import jax.numpy as jnp
    >>> round(float(effective_rank(jnp.eye(5)[:3])), 4)
    3.0
  """
  # The smaller of the two products with the same eigenvalues.
  directions = similarity.normalize(embeddings)
  if directions.shape[0] > directions.shape[1]:
    directions = directions.T
  gram = jnp.matmul(
    directions, directions.T, precision=jax.lax.Precision.HIGHEST
  )
  squared = jnp.linalg.eigvalsh(gram)
  # Rounding errors make zero eigenvalues about this large.
  noise = gram.shape[0] * jnp.finfo(gram.dtype).eps * jnp.max(squared)
  singular = jnp.sqrt(jnp.where(squared > noise, squared, 0))
  total = jnp.sum(singular)
  shares = singular / jnp.where(total > 0, total, 1)
  return jnp.exp(-similarity.negative_entropy(shares))
