"""NT-Xent, the contrastive loss of SimCLR.

Reference:
  Chen et al., A Simple Framework for Contrastive Learning of Visual
  Representations, 2020 (arXiv 2002.05709).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import blocks
from paws_jax.losses import similarity


def nt_xent_loss(
  view_a: jax.Array,
  view_b: jax.Array,
  *,
  temperature: float,
  detached_keys: bool = False,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Computes the normalized-temperature cross-entropy of two views.

  Each view is to be distinguished from all views of other images by its
  similarity to the other view of its image: −log(e^{s_ip/τ} / Σ_{j≠i}
  e^{s_ij/τ}) (SimCLR, 2020).

  Args:
    view_a: [B, D] embeddings, this device's; they need not be normalized.
    view_b: [B, D], the other views of the same images.
    temperature: τ > 0.
    detached_keys: whether the gradient flows only through the query of a
      similarity, as in the public code of SuNCEt and PAWS.
    axis_name: mesh axes over which the images are spread.

  Returns:
    Scalar ≥ 0, the mean over both views of the images of all devices. It is 0
    for a single image.

  Raises:
    ValueError: the views differ in shape.
  """
  if view_a.ndim != 2 or view_a.shape != view_b.shape:
    raise ValueError(
      f"view_a has shape {view_a.shape} and view_b {view_b.shape}: give two "
      "arrays [images, dimensions] of the same images."
    )
  queries = jnp.concatenate([view_a, view_b])
  keys = jax.lax.stop_gradient(queries) if detached_keys else queries
  first: int | jax.Array = 0
  if axis_name is not None:
    keys = jax.lax.all_gather(keys, axis_name, tiled=True)
    first = jax.lax.axis_index(axis_name) * queries.shape[0]
  loss = jnp.mean(
    nt_xent_rows(queries, keys, first=first, temperature=temperature)
  )
  return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def nt_xent_rows(
  queries: jax.Array,
  keys: jax.Array,
  *,
  first: int | jax.Array,
  temperature: float,
  num_blocks: int = 1,
) -> jax.Array:
  """Computes the terms of `nt_xent_loss` from all embeddings.

  Args:
    queries: [2·b, D], the first views of b images and then the second ones.
    keys: [2·B, D], queries of all devices.
    first: row of the first query in `keys`; the others follow it.
    temperature: τ > 0.
    num_blocks: blocks of queries whose similarities are computed at a time.

  Returns:
    [2·b] values ≥ 0.
  """
  places = jnp.arange(queries.shape[0])
  # The other view of an image is half the rows away, cyclically.
  others = jnp.roll(places, queries.shape[0] // 2)

  def terms(rows: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    queries, places, others = rows
    logits = similarity.cosine_similarities(queries, keys) / temperature
    itself, other = (
      similarity.are_keys(first + rows, keys.shape[0])
      for rows in (places, others)
    )
    positive = jnp.sum(jnp.where(other, logits, 0), axis=-1)
    everything = jnp.where(itself, -jnp.inf, logits)
    return jax.nn.logsumexp(everything, axis=-1) - positive

  rows = queries, places, others
  return blocks.in_blocks(terms, rows, num_blocks=num_blocks)
