"""Contrastive losses: SuNCEt, with labels, and NT-Xent, without.

References:
  Assran et al., Supervision Accelerates Pre-training in Contrastive
  Semi-Supervised Learning of Visual Representations, 2020
  (arXiv 2006.10803): SuNCEt.
  Chen et al., A Simple Framework for Contrastive Learning of Visual
  Representations, 2020 (arXiv 2002.05709): NT-Xent, the loss of SimCLR.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


def nt_xent_loss(
  view_a: jax.Array,
  view_b: jax.Array,
  *,
  temperature: float,
  detached_keys: bool = False,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Normalised-temperature cross-entropy of two views (SimCLR, 2020).

  Each view is to be told from all views of other images by its similarity to
  the other view of its own: −log(e^{s_ip/τ} / Σ_{j≠i} e^{s_ij/τ}).

  Args:
    view_a: [B, D] embeddings, this device's; they need not be normalised.
    view_b: [B, D], the other views of the same images.
    temperature: τ > 0.
    detached_keys: lets the gradient flow through the query of a similarity
      alone, as the public code of SuNCEt and PAWS has it.
    axis_name: mesh axes over which the images are spread.

  Returns:
    Scalar ≥ 0, the mean over both views of the images of all devices. It is 0
    for a single image, which has nothing to be told from.

  Raises:
    ValueError: when the views differ in shape.
  """
  if view_a.ndim != 2 or view_a.shape != view_b.shape:
    raise ValueError(
      f"view_a has shape {view_a.shape} and view_b {view_b.shape}: give two "
      "arrays [images, dimensions] of the same images."
    )
  queries = jnp.concatenate([view_a, view_b])
  keys, first = jax.lax.stop_gradient(queries) if detached_keys else queries, 0
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
) -> jax.Array:
  """The terms of `nt_xent_loss`, where all embeddings are at hand.

  Args:
    queries: [2·b, D], first views of b images and then their second ones.
    keys: [2·B, D], queries of every device.
    first: which key the first query is; the others follow it.
    temperature: τ > 0.

  Returns:
    [2·b] values ≥ 0.
  """
  num_rows = queries.shape[0]
  logits = similarity.cosine_similarities(queries, keys) / temperature
  itself = similarity.same_rows(first, num_rows, keys.shape[0])
  # The other view of an image stands half the rows further, around the end.
  other = jnp.roll(itself, num_rows // 2, axis=0)
  positive = jnp.sum(jnp.where(other, logits, 0), axis=-1)
  everything = jnp.where(itself, -jnp.inf, logits)
  return jax.nn.logsumexp(everything, axis=-1) - positive
