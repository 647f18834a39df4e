"""Swapped assignments of views to prototypes (SwAV).

References:
  Caron et al., Unsupervised Learning of Visual Features by Contrasting Cluster
  Assignments, 2020 (arXiv 2006.09882); Cuturi, Sinkhorn Distances, 2013.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


def sinkhorn(
  scores: jax.Array,
  *,
  epsilon: float,
  num_iterations: int,
  axis_name: similarity.AxisName = None,
  valid: jax.Array | None = None,
) -> jax.Array:
  """Assigns samples to prototypes so that all prototypes are used equally.

  Sinkhorn-Knopp on exp(scores / ε): each iteration gives every prototype the
  same total, then every sample a total of 1 (SwAV, section 3.1). It runs in the
  log domain, and so for any ε.

  Args:
    scores: [..., B, K], cosines of samples and prototypes; each leading index
      is a problem of its own. Without gradient.
    epsilon: ε > 0; large values make assignments uniform.
    num_iterations: at least 1.
    axis_name: mesh axes over which the samples are spread.
    valid: [B] or [..., B] bool, samples that take part; None: all. Rows of
      others hold values without meaning.

  Returns:
    [..., B, K] float32 or wider; rows sum to 1.

  Raises:
    ValueError: `epsilon` is not positive, or there is no iteration.
  """
  if epsilon <= 0 or num_iterations < 1:
    raise ValueError(
      "sinkhorn needs epsilon > 0 and num_iterations >= 1, got "
      f"{epsilon} and {num_iterations}."
    )
  scaled = similarity.at_least_float32(jax.lax.stop_gradient(scores)) / epsilon
  used = scaled
  if valid is not None:
    valid = jnp.broadcast_to(valid, scaled.shape[:-1])
    used = jnp.where(valid[..., None], scaled, -jnp.inf)
  largest = jnp.max(used, axis=-2, keepdims=True)
  if axis_name is not None:
    largest = jax.lax.pmax(largest, axis_name)
  # Logarithms of the factors of prototypes and samples. Whatever the scores
  # are, no exponential below overflows: with the factors of the step before, an
  # exponent is at most 0. And no sum underflows: it is at least 1 at first, and
  # later a prototype's share of all samples.
  prototypes = -largest
  samples = jnp.zeros_like(scaled[..., :1])
  for _ in range(num_iterations):
    totals = jnp.sum(
      jnp.exp(used + prototypes + samples), axis=-2, keepdims=True
    )
    if axis_name is not None:
      totals = jax.lax.psum(totals, axis_name)
    prototypes = prototypes - jnp.log(totals)
    samples = -jax.nn.logsumexp(scaled + prototypes, axis=-1, keepdims=True)
  return jnp.exp(scaled + prototypes + samples)


def swav_loss(
  embeddings: jax.Array,
  prototypes: jax.Array,
  *,
  num_crops: int,
  temperature: float,
  epsilon: float,
  num_iterations: int = 3,
  queue: jax.Array | None = None,
  assigned: Sequence[int] = (0, 1),
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Computes the cross-entropy of crops and other crops' assignments.

  Eq. 1 of SwAV and its multi-crop form: the mean over the assigned crops, over
  all other crops, and over the images.

  Args:
    embeddings: [V·B, D] of this device, view-major; they need not be
      normalized.
    prototypes: [K, D] unit rows; the gradient is with respect to these.
    num_crops: V ≥ 2.
    temperature: τ > 0 of the predictions.
    epsilon: ε > 0 of the assignments.
    num_iterations: of `sinkhorn`.
    queue: [len(assigned), L, D] unit rows of this device, embeddings of earlier
      steps that are assigned beside those of each assigned crop; None: none.
    assigned: crops with assignments.
    axis_name: mesh axes over which images and queue are spread.

  Returns:
    Scalar ≥ 0, equal on all devices, float32 or wider.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  scores = crop_scores(embeddings, prototypes, num_crops=num_crops)
  assignments = swav_assignments(
    scores,
    prototypes,
    epsilon=epsilon,
    num_iterations=num_iterations,
    queue=queue,
    assigned=assigned,
    axis_name=axis_name,
  )
  loss = swapped_cross_entropy(
    scores, assignments, temperature=temperature, assigned=assigned
  )
  return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def crop_scores(
  embeddings: jax.Array, prototypes: jax.Array, *, num_crops: int
) -> jax.Array:
  """Computes the cosines [V, B, K] of normalized embeddings and prototypes.

  Args:
    embeddings: [V·B, D], view-major.
    prototypes: [K, D] unit rows.
    num_crops: V ≥ 2.

  Raises:
    ValueError: the shapes are inconsistent.
  """
  similarity.check_dimensions(
    embeddings, prototypes, names=("embeddings", "prototypes")
  )
  if num_crops < 2 or embeddings.shape[0] % num_crops:
    raise ValueError(
      f"{embeddings.shape[0]} embeddings are not those of num_crops = "
      f"{num_crops} crops of each image; at least 2 are needed."
    )
  scores = similarity.dot_products(
    similarity.normalize(embeddings), similarity.at_least_float32(prototypes)
  )
  return scores.reshape(num_crops, -1, prototypes.shape[0])


def swav_assignments(
  scores: jax.Array,
  prototypes: jax.Array,
  *,
  epsilon: float,
  num_iterations: int,
  queue: jax.Array | None,
  assigned: Sequence[int],
  axis_name: similarity.AxisName,
  queue_is_full: jax.Array | bool = True,
) -> jax.Array:
  """Assigns the images to prototypes, once for each assigned crop.

  Args:
    scores: [V, B, K] of this device, from `crop_scores`.
    prototypes: [K, D] unit rows.
    epsilon: as of `sinkhorn`.
    num_iterations: as of `sinkhorn`.
    queue: [len(assigned), L, D] unit rows of this device, or None.
    assigned: crops with assignments.
    axis_name: mesh axes over which images and queue are spread.
    queue_is_full: bool scalar; the queue takes part only if it is True.

  Returns:
    [len(assigned), B, K] without gradient; rows sum to 1.

  Raises:
    ValueError: a crop does not exist, or the queue has another shape.
  """
  num_crops, num_images, _ = scores.shape
  if not assigned or not set(assigned) <= set(range(num_crops)):
    raise ValueError(
      f"assigned is {tuple(assigned)}: it must name some of the crops 0 to "
      f"{num_crops - 1}."
    )
  rows = scores[jnp.asarray(assigned)]
  valid = None
  if queue is not None:
    if queue.ndim != 3 or queue.shape[0] != len(assigned):
      raise ValueError(
        f"queue has shape {queue.shape}: it must be [{len(assigned)}, L, D], "
        "one list for each assigned crop."
      )
    earlier = similarity.dot_products(queue, prototypes)
    rows = jnp.concatenate([rows, earlier], axis=1)
    valid = (jnp.arange(rows.shape[1]) < num_images) | queue_is_full
  assignments = sinkhorn(
    rows,
    epsilon=epsilon,
    num_iterations=num_iterations,
    axis_name=axis_name,
    valid=valid,
  )
  return assignments[:, :num_images]


def swapped_cross_entropy(
  scores: jax.Array,
  assignments: jax.Array,
  *,
  temperature: float,
  assigned: Sequence[int],
) -> jax.Array:
  """Averages the cross-entropies of assignments and other crops' predictions.

  Args:
    scores: [V, B, K], V ≥ 2.
    assignments: [len(assigned), B, K].
    temperature: τ > 0 of the predictions.
    assigned: crops with assignments.

  Returns:
    Scalar ≥ 0, of these rows.
  """
  log_probs = jax.nn.log_softmax(scores / temperature, axis=-1)
  everyone = jnp.sum(log_probs, axis=0)
  losses = [
    -jnp.mean(jnp.sum(targets * (everyone - log_probs[crop]), axis=-1))
    for crop, targets in zip(assigned, assignments, strict=True)
  ]
  total: Any = sum(losses)
  return total / (len(losses) * (scores.shape[0] - 1))
