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


def suncet_loss(
  embeddings: jax.Array,
  labels: jax.Array,
  *,
  temperature: float,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Supervised noise-contrastive loss of a labelled batch (SuNCEt, 2020).

  Every image is classified by a soft nearest-neighbour vote of all the others;
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
  itself = _same(first, queries.shape[0], keys.shape[0])
  weights = jax.nn.softmax(jnp.where(itself, -jnp.inf, similarities), axis=-1)
  probs = jnp.matmul(
    weights,
    key_labels.astype(weights.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
  return similarity.cross_entropy(labels.astype(probs.dtype), probs)


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
  itself = _same(first, num_rows, keys.shape[0])
  # The other view of an image stands half the rows further, around the end.
  other = jnp.roll(itself, num_rows // 2, axis=0)
  positive = jnp.sum(jnp.where(other, logits, 0), axis=-1)
  everything = jnp.where(itself, -jnp.inf, logits)
  return jax.nn.logsumexp(everything, axis=-1) - positive


def _same(first: int | jax.Array, num_rows: int, num_keys: int) -> jax.Array:
  """Bool [num_rows, num_keys]: where row `first` + i is key j."""
  rows = first + jnp.arange(num_rows)
  return rows[:, None] == jnp.arange(num_keys)[None, :]
