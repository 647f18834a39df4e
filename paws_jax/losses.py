"""The mathematics of PAWS and SuNCEt: pure functions of arrays, no networks.

Everything is computed in float32 or wider. Functions with an `axis_name` may be
called inside `jax.shard_map`: anchors (or queries) are then this device's rows,
and every returned value is the global one, the same on all devices. Take
gradients outside the `shard_map`; they are those of the global mean.

References:
  Assran et al., Semi-Supervised Learning of Visual Features by
  Non-Parametrically Predicting View Assignments with Support Samples, 2021
  (arXiv 2104.13963): PAWS.
  Assran et al., Supervision Accelerates Pre-training in Contrastive
  Semi-Supervised Learning of Visual Representations, 2020
  (arXiv 2006.10803): SuNCEt.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# Targets below this become zero, after averaging and without renormalising.
TARGET_THRESHOLD = 1e-4
# Below this an embedding's norm is taken for this.
MIN_NORM = 1e-12

AxisName = str | Sequence[str] | None


def normalise(embeddings: jax.Array) -> jax.Array:
  """Scales rows to unit length: `x / max(|x|, 1e-12)`.

  Args:
    embeddings: [..., D], any float dtype; computed in float32 or wider.

  Returns:
    [..., D]. A zero row stays zero, with a finite gradient.
  """
  embeddings = _at_least_float32(embeddings)
  squared = jnp.sum(embeddings**2, axis=-1, keepdims=True)
  # sqrt has an infinite slope at 0: its argument is replaced there.
  norm = jnp.where(squared > 0, jnp.sqrt(jnp.where(squared > 0, squared, 1)), 0)
  return embeddings / jnp.maximum(norm, MIN_NORM)


def cosine_similarities(queries: jax.Array, keys: jax.Array) -> jax.Array:
  """Cosines between all rows of `queries` [n, D] and `keys` [m, D]: [n, m]."""
  return jnp.matmul(
    normalise(queries), normalise(keys).T, precision=jax.lax.Precision.HIGHEST
  )


def label_rows(
  labels: jax.Array, class_ids: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
  """Builds the smoothed one-hot rows of a support set.

  Args:
    labels: [N] integers, class of each support image.
    class_ids: [C] integers, distinct; the class that each column stands for.
    smoothing: ε in [0, 1): a row holds 1 − ε + ε/C at its class, ε/C elsewhere
      (PAWS, section 5, 2021).

  Returns:
    [N, C] float32 (float64 where that is the default). A label that is not
    among `class_ids` has no column: its row holds ε/C throughout.
  """
  one_hot = (labels[:, None] == class_ids[None, :]).astype(float)
  return (1 - smoothing) * one_hot + smoothing / class_ids.shape[0]


def soft_nearest_neighbours(
  queries: jax.Array,
  supports: jax.Array,
  support_labels: jax.Array,
  *,
  temperature: float,
) -> jax.Array:
  """Predicts classes by a vote of the supports, weighted by similarity.

  `softmax(cosine(queries, supports) / temperature) @ support_labels`: PAWS,
  section 3 (2021).

  Args:
    queries: [n, D] embeddings; they need not be normalised.
    supports: [N, D] embeddings.
    support_labels: [N, C] label rows.
    temperature: τ > 0; small values make the nearest support decide.

  Returns:
    [n, C] float32 or wider; rows sum to 1 where the label rows do.

  Raises:
    ValueError: when the shapes do not fit each other.

  Example:
    >>> import jax.numpy as jnp
    >>> queries = jnp.array([[1.0, 0.0]])
    >>> supports = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    >>> probs = soft_nearest_neighbours(
    ...   queries, supports, jnp.eye(2), temperature=0.1
    ... )
    >>> bool(probs[0, 0] > 0.999)
    True
  """
  _check_supports(queries, supports, support_labels)
  similarities = cosine_similarities(queries, supports)
  weights = jax.nn.softmax(similarities / temperature, axis=-1)
  return jnp.matmul(
    weights,
    support_labels.astype(weights.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )


def sharpen(probs: jax.Array, *, temperature: float) -> jax.Array:
  """Raises probabilities to the power 1/temperature and renormalises the rows.

  ρ of PAWS, section 3 (2021).

  Args:
    probs: [..., C], not negative, each row with a positive entry.
    temperature: T > 0; 1 changes nothing, small values tend to one-hot rows.

  Returns:
    [..., C]; rows sum to 1.
  """
  probs = _at_least_float32(probs)
  # Dividing by the largest entry cancels in the ratio, and keeps the powers of
  # many small probabilities from all underflowing to zero.
  largest = jax.lax.stop_gradient(jnp.max(probs, axis=-1, keepdims=True))
  powers = (probs / largest) ** (1 / temperature)
  return powers / jnp.sum(powers, axis=-1, keepdims=True)


def cross_entropy(targets: jax.Array, probs: jax.Array) -> jax.Array:
  """Cross-entropy −Σ t log p of each row, in nats.

  Where a target is 0 its term is 0 with zero gradient, also at p = 0; where it
  is not, log p is taken of at least the smallest normal number.

  Args:
    targets: [..., C], not negative.
    probs: [..., C], in [0, 1].

  Returns:
    [...] values ≥ 0.
  """
  tiny = jnp.finfo(probs.dtype).tiny
  safe = jnp.where(targets > 0, jnp.maximum(probs, tiny), 1)
  return -jnp.sum(targets * jnp.log(safe), axis=-1)


def negative_entropy(probs: jax.Array) -> jax.Array:
  """Σ p log p of each row [..., C] -> [...] ≤ 0, with 0 log 0 = 0."""
  safe = jnp.where(probs > 0, probs, 1)
  return jnp.sum(probs * jnp.log(safe), axis=-1)


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
  """Predictions of all anchors, and the targets they are held to.

  Arguments are those of `paws_loss`.

  Returns:
    probs [(L + M)·B, C], anchors' predictions, with gradient; targets of the
    same shape, without.
  """
  _check_views(anchor_views, target_views, num_large_crops, num_small_crops)
  probs = soft_nearest_neighbours(
    anchor_views, anchor_supports, support_labels, temperature=temperature
  )
  stop = jax.lax.stop_gradient
  large = sharpen(
    soft_nearest_neighbours(
      stop(target_views),
      stop(target_supports),
      support_labels,
      temperature=temperature,
    ),
    temperature=sharpen_temperature,
  )
  per_crop = large.reshape(num_large_crops, -1, large.shape[-1])
  mean = jnp.mean(per_crop, axis=0)
  if num_large_crops > 2:
    others = jnp.sum(per_crop, axis=0, keepdims=True) - per_crop
    large = (others / (num_large_crops - 1)).reshape(large.shape)
  targets = jnp.concatenate([large, jnp.tile(mean, (num_small_crops, 1))])
  return probs, jnp.where(targets < TARGET_THRESHOLD, 0, targets)


def paws_objective(
  probs: jax.Array,
  targets: jax.Array,
  *,
  sharpen_temperature: float,
  me_max: bool,
  axis_name: AxisName = None,
) -> tuple[jax.Array, jax.Array]:
  """Cross-entropy and me-max regulariser of given predictions and targets.

  Args:
    probs: [n, C] predictions of this device's anchors.
    targets: [n, C].
    sharpen_temperature: T of the mean sharpened prediction.
    me_max: whether to compute the regulariser; 0 without it.
    axis_name: mesh axes over which the anchors are spread.

  Returns:
    (cross_entropy, regularizer), scalars; see `paws_loss`.
  """
  # One small all-reduce for both: a mean, and C mean predictions.
  mean_ce = jnp.mean(cross_entropy(targets, probs))
  mean_probs = jnp.mean(sharpen(probs, temperature=sharpen_temperature), axis=0)
  if axis_name is not None:
    mean_ce, mean_probs = jax.lax.pmean((mean_ce, mean_probs), axis_name)
  regularizer = negative_entropy(mean_probs)
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
  axis_name: AxisName = None,
) -> tuple[jax.Array, jax.Array]:
  """The PAWS loss in its two terms (section 3, equation 1, 2021).

  Each anchor's prediction is held, by cross-entropy, to the sharpened
  prediction of the other large view of its image; a small crop's to the mean
  of the two. The regulariser spreads the mean prediction over the classes.

  Args:
    anchor_views: [(L + M)·B, D] embeddings, view-major: all first large views,
      all second ones, then each small crop of all images. L is
      `num_large_crops`, M `num_small_crops`.
    anchor_supports: [N, D] support embeddings of all devices, for the anchors.
    support_labels: [N, C] label rows.
    target_views: [L·B, D] embeddings of the large views. With L = 2 swapped:
      row i belongs to the view opposite anchor i's; with L > 2 in the order of
      the anchors. No gradient flows through them.
    target_supports: [N, D] support embeddings for the targets, likewise.
    num_small_crops: M ≥ 0.
    temperature: τ of the similarities.
    sharpen_temperature: T of the targets and of the mean prediction.
    me_max: whether to compute the regulariser.
    num_large_crops: L ≥ 2.
    axis_name: mesh axes over which anchors and targets are spread; supports and
      label rows are already global.

  Returns:
    cross_entropy ≥ 0, the mean over all anchors of all devices; and
    regularizer = Σ p̄ log p̄ ≤ 0, minus the entropy of the mean sharpened
    prediction (0 without `me_max`). The loss is their sum; log C + regularizer
    is KL(p̄ ‖ uniform) ≥ 0.

  Raises:
    ValueError: when the shapes do not fit each other or the numbers of crops.
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


def suncet_loss(
  embeddings: jax.Array,
  labels: jax.Array,
  *,
  temperature: float,
  axis_name: AxisName = None,
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
  _check_supports(embeddings, embeddings, labels)
  # Before labels are put beside them: bfloat16 would round the labels too.
  embeddings = _at_least_float32(embeddings)
  keys, key_labels, first = embeddings, labels, 0
  if axis_name is not None:
    # One gather for both; its transpose is the reduce-scatter.
    both = jnp.concatenate([embeddings, labels.astype(embeddings.dtype)], -1)
    both = jax.lax.all_gather(both, axis_name, tiled=True)
    keys, key_labels = jnp.split(both, [embeddings.shape[-1]], axis=-1)
    first = jax.lax.axis_index(axis_name) * embeddings.shape[0]
  similarities = cosine_similarities(embeddings, keys) / temperature
  rows = first + jnp.arange(embeddings.shape[0])
  itself = rows[:, None] == jnp.arange(keys.shape[0])[None, :]
  weights = jax.nn.softmax(jnp.where(itself, -jnp.inf, similarities), axis=-1)
  probs = jnp.matmul(
    weights,
    key_labels.astype(weights.dtype),
    precision=jax.lax.Precision.HIGHEST,
  )
  loss = jnp.mean(cross_entropy(labels.astype(probs.dtype), probs))
  return loss if axis_name is None else jax.lax.pmean(loss, axis_name)


def _at_least_float32(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _check_supports(
  queries: jax.Array, supports: jax.Array, support_labels: jax.Array
) -> None:
  if queries.ndim != 2 or supports.ndim != 2 or support_labels.ndim != 2:
    raise ValueError(
      "queries, supports and support_labels must have two dimensions; got "
      f"shapes {queries.shape}, {supports.shape} and {support_labels.shape}."
    )
  if queries.shape[1] != supports.shape[1]:
    raise ValueError(
      f"queries have {queries.shape[1]} dimensions and supports "
      f"{supports.shape[1]}: both must come from the same embedding."
    )
  if supports.shape[0] != support_labels.shape[0]:
    raise ValueError(
      f"{supports.shape[0]} supports but {support_labels.shape[0]} label rows: "
      "give one row per support."
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
