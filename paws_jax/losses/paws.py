"""The loss of PAWS (Assran et al., 2021, arXiv 2104.13963)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity

# After averaging, smaller targets become zero, without renormalization.
TARGET_THRESHOLD = 1e-4


def paws_predictions(
  anchor_views: jax.Array,
  anchor_supports: jax.Array,
  support_labels: jax.Array,
  target_views: jax.Array,
  target_supports: jax.Array,
  *,
  num_small_crops: int,
  temperature: float,
  sharpen_temperature: float,
  num_large_crops: int = 2,
) -> tuple[jax.Array, jax.Array]:
  """Computes the predictions and the targets of all anchors.

  Arguments are those of `paws_loss`.

  Returns:
    probs [(L + M)·B, C], predictions of the anchors, with gradient; targets of
    the same shape, without gradient.
  """
  _check_views(anchor_views, target_views, num_large_crops, num_small_crops)
  probs = similarity.soft_nearest_neighbours(
    anchor_views, anchor_supports, support_labels, temperature=temperature
  )
  stop = jax.lax.stop_gradient
  large = similarity.soft_nearest_neighbours(
    stop(target_views),
    stop(target_supports),
    support_labels,
    temperature=temperature,
  )
  return probs, paws_targets(
    large,
    num_small_crops=num_small_crops,
    num_large_crops=num_large_crops,
    sharpen_temperature=sharpen_temperature,
  )


def paws_targets(
  large: jax.Array,
  *,
  num_small_crops: int,
  num_large_crops: int,
  sharpen_temperature: float,
) -> jax.Array:
  """Computes the targets of all anchors from predictions of the large crops.

  Args:
    large: [L·B, C] predictions in the order of `paws_loss`' `target_views`.
    num_small_crops: M.
    num_large_crops: L.
    sharpen_temperature: T.

  Returns:
    [(L + M)·B, C]: sharpened predictions, averaged over several crops where
    there are, with values below 1e-4 set to 0.
  """
  large = similarity.sharpen(large, temperature=sharpen_temperature)
  per_crop = large.reshape(num_large_crops, -1, large.shape[-1])
  mean = jnp.mean(per_crop, axis=0)
  if num_large_crops > 2:
    others = jnp.sum(per_crop, axis=0, keepdims=True) - per_crop
    large = (others / (num_large_crops - 1)).reshape(large.shape)
  targets = jnp.concatenate([large, jnp.tile(mean, (num_small_crops, 1))])
  return jnp.where(targets < TARGET_THRESHOLD, 0, targets)


def paws_objective(
  probs: jax.Array,
  targets: jax.Array,
  *,
  sharpen_temperature: float,
  me_max: bool,
  weights: jax.Array | None = None,
  prior: jax.Array | None = None,
  axis_name: similarity.AxisName = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes cross-entropy and me-max regularizer of predictions and targets.

  Args:
    probs: [n, C] predictions of this device's anchors.
    targets: [n, C].
    sharpen_temperature: T of the mean sharpened prediction.
    me_max: whether to compute the regularizer; otherwise it is 0.
    weights: [n] weights of the anchors in the cross-entropy; None: all 1.
    prior: [C] positive, with sum 1, target of the mean prediction; None: the
      uniform distribution, as in the paper.
    axis_name: mesh axes over which the anchors are spread.

  Returns:
    (cross_entropy, regularizer), scalars; see `paws_loss`. With a prior the
    regularizer is KL(p̄ ‖ prior) − log C, which for the uniform prior is
    Σ p̄ log p̄: log C + regularizer is always the divergence from the prior.
  """
  each = similarity.cross_entropy(targets, probs)
  # One small all-reduce for both: a mean, and C mean predictions.
  mean_ce = jnp.mean(each if weights is None else weights * each)
  mean_probs = jnp.mean(
    similarity.sharpen(probs, temperature=sharpen_temperature), axis=0
  )
  if axis_name is not None:
    mean_ce, mean_probs = jax.lax.pmean((mean_ce, mean_probs), axis_name)
  regularizer = similarity.negative_entropy(mean_probs)
  if prior is not None:
    ratio = prior.astype(mean_probs.dtype) * prior.shape[0]
    regularizer -= jnp.sum(mean_probs * jnp.log(ratio))
  return mean_ce, regularizer if me_max else jnp.zeros_like(regularizer)


def paws_loss(
  anchor_views: jax.Array,
  anchor_supports: jax.Array,
  support_labels: jax.Array,
  target_views: jax.Array,
  target_supports: jax.Array,
  *,
  num_small_crops: int,
  temperature: float,
  sharpen_temperature: float,
  me_max: bool,
  num_large_crops: int = 2,
  axis_name: similarity.AxisName = None,
) -> tuple[jax.Array, jax.Array]:
  """Computes the two terms of the PAWS loss (section 3, equation 1, 2021).

  The target of an anchor is the sharpened prediction of the other large view of
  its image, or for a small crop the mean of both.

  Args:
    anchor_views: [(L + M)·B, D] embeddings, view-major: all first large views,
      all second ones, then each small crop of all images.
    anchor_supports: [N, D] support embeddings of all devices, for the anchors.
    support_labels: [N, C] label rows.
    target_views: [L·B, D] embeddings of the large views, without gradient:
      for L = 2 swapped (row i has the other view of anchor i's image).
    target_supports: [N, D] support embeddings of all devices, for the targets.
    num_small_crops: M ≥ 0.
    temperature: τ of the similarities.
    sharpen_temperature: T of the targets and of the mean prediction.
    me_max: whether to compute the regularizer.
    num_large_crops: L ≥ 2.
    axis_name: mesh axes of anchors and targets; supports are already global.

  Returns:
    cross_entropy ≥ 0, the mean over the anchors of all devices; regularizer =
    Σ p̄ log p̄ ≤ 0 of the mean sharpened prediction (0 without `me_max`), where
    log C + regularizer is KL(p̄ ‖ uniform) ≥ 0. The loss is their sum.

  Raises:
    ValueError: shapes or numbers of crops are inconsistent.
  """
  probs, targets = paws_predictions(
    anchor_views,
    anchor_supports,
    support_labels,
    target_views,
    target_supports,
    num_small_crops=num_small_crops,
    temperature=temperature,
    sharpen_temperature=sharpen_temperature,
    num_large_crops=num_large_crops,
  )
  return paws_objective(
    probs,
    targets,
    sharpen_temperature=sharpen_temperature,
    me_max=me_max,
    axis_name=axis_name,
  )


def _check_views(
  anchors: jax.Array, targets: jax.Array, num_large: int, num_small: int
) -> None:
  if num_large < 2:
    raise ValueError(
      f"num_large_crops is {num_large}: PAWS needs at least 2, a view is "
      "compared with another view."
    )
  if targets.shape[0] % num_large:
    raise ValueError(
      f"target_views has {targets.shape[0]} rows, not a multiple of "
      f"num_large_crops = {num_large}."
    )
  expected = targets.shape[0] // num_large * (num_large + num_small)
  if anchors.shape[0] != expected:
    raise ValueError(
      f"anchor_views has {anchors.shape[0]} rows; {targets.shape[0]} "
      f"target_views with num_large_crops = {num_large} and num_small_crops = "
      f"{num_small} ask for {expected}."
    )
