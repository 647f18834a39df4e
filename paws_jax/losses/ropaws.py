"""RoPAWS: soft labels that may say "none of these".

PAWS' vote of the supports is Bayes' rule for a kernel-density estimate of each
class. RoPAWS adds the unlabelled images of the step to the density, each with
its own, unknown class, and a prior of being of any known class that falls with
the distance from the nearest support.

Reference:
  Mo et al., RoPAWS: Robust Semi-supervised Representation Learning from
  Uncurated Data, 2023 (arXiv 2302.14483), section 4.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax.losses import similarity


class Kernel(NamedTuple):
  """How much each item has to say about each of n views.

  The rows of both matrices add up to 1 together.
  """

  # [n, N] of the supports.
  labelled: jax.Array
  # [n, M] of the views themselves, those of other devices included; 0 for a
  # view about itself.
  unlabelled: jax.Array
  # [n] in (0, 1]: prior of being of a known class, by the nearest support.
  in_domain: jax.Array


def in_domain_probability(
  max_similarity: jax.Array, *, temperature: float
) -> jax.Array:
  """Probability that an image is of a known class: exp((max s − 1) / τ).

  Args:
    max_similarity: [...] largest cosine to any support, in [−1, 1].
    temperature: of the prior, > 0 (RoPAWS: 3 for ImageNet, 0.1 for CIFAR-10).

  Returns:
    [...] in (0, 1]; 1 for a copy of a support.

  Example:
    >>> import jax.numpy as jnp
    >>> in_domain_probability(jnp.array([1.0, 0.7]), temperature=0.3).tolist()
    [1.0, 0.3678794503211975]
  """
  similarities = similarity.at_least_float32(jnp.asarray(max_similarity))
  # Rounding may take a cosine above 1.
  return jnp.exp((jnp.minimum(similarities, 1) - 1) / temperature)


def label_weight(
  label_mass_ratio: float, *, num_unlabelled: float, num_supports: float
) -> float:
  """The factor r of the kernels of labelled images.

  Args:
    label_mass_ratio: what all supports together weigh, over all unlabelled
      images together, were they equally near.
    num_unlabelled: M of a view.
    num_supports: N.

  Returns:
    ratio · M / N. (The published trainer puts one device's unlabelled images
    for M and the images of one class for N: 45.7 in place of 3.05 for ImageNet,
    where labels then weigh 75 times as much as the rest, not 5 times.)
  """
  return label_mass_ratio * num_unlabelled / num_supports


def kernel(
  views: jax.Array,
  all_views: jax.Array,
  supports: jax.Array,
  *,
  first: int | jax.Array,
  temperature: float,
  prior_temperature: float,
  label_weight: float,
) -> Kernel:
  """Weights of the supports and of the other views, for each view.

  Args:
    views: [n, D] embeddings, some of `all_views`.
    all_views: [M, D], one view of every unlabelled image of the step.
    supports: [N, D].
    first: which of `all_views` the first view is; the others follow it.
    temperature: τ of the kernels.
    prior_temperature: see `in_domain_probability`.
    label_weight: r > 0, see `label_weight`.
  """
  to_supports = similarity.cosine_similarities(views, supports)
  to_views = similarity.cosine_similarities(views, all_views) / temperature
  rows = first + jnp.arange(views.shape[0])
  itself = rows[:, None] == jnp.arange(all_views.shape[0])[None, :]
  logits = jnp.concatenate(
    [
      to_supports / temperature + jnp.log(label_weight),
      jnp.where(itself, -jnp.inf, to_views),
    ],
    axis=-1,
  )
  weights = jax.nn.softmax(logits, axis=-1)
  labelled, unlabelled = jnp.split(weights, [supports.shape[0]], axis=-1)
  in_domain = in_domain_probability(
    jnp.max(to_supports, axis=-1), temperature=prior_temperature
  )
  return Kernel(labelled, unlabelled, in_domain)


def posteriors(
  kernels: Kernel,
  support_labels: jax.Array,
  *,
  num_iterations: int,
  axis_name: similarity.AxisName = None,
) -> jax.Array:
  """Probabilities of each class, and together of being of any of them.

  The solution of P = D (A_L Y + A_U P), with D the in-domain prior on the
  diagonal, by iteration: rows of D A_U add up to less than 1, so that every
  step brings it nearer, from below. One all-gather an iteration; a linear solve
  would have every device do all of it.

  Args:
    kernels: for L views of this device's n images, stacked: [L, n, ...].
    support_labels: [N, C] label rows.
    num_iterations: of the fixed point, at least 0; 0 leaves out what unlabelled
      images say.
    axis_name: mesh axes over which images are spread.

  Returns:
    [L, n, C], not negative; rows add up to p(known) ≤ 1.
  """
  dtype = kernels.labelled.dtype
  highest = jax.lax.Precision.HIGHEST
  prior = kernels.in_domain[..., None]
  votes = jnp.einsum(
    "lns,sc->lnc",
    kernels.labelled,
    support_labels.astype(dtype),
    precision=highest,
  )

  def improved(unused_i: int, current: jax.Array) -> jax.Array:
    others = current
    if axis_name is not None:
      others = jax.lax.all_gather(current, axis_name, axis=1, tiled=True)
    heard = jnp.matmul(kernels.unlabelled, others, precision=highest)
    return prior * (votes + heard)

  return jax.lax.fori_loop(0, num_iterations, improved, prior * votes)


def spread_missing(posterior: jax.Array) -> jax.Array:
  """Gives what is missing to 1 to all classes alike: [..., C] -> [..., C]."""
  missing = 1 - jnp.sum(posterior, axis=-1, keepdims=True)
  return posterior + missing / posterior.shape[-1]
