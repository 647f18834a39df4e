"""RoPAWS: soft labels with a probability of belonging to no class.

The soft nearest-neighbor vote of PAWS is Bayes' rule for a kernel density
estimate of each class. RoPAWS adds the unlabelled images of the step to the
density, each with its own unknown class, and a prior probability of belonging
to a known class, which falls with the distance from the nearest support.

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
  """Weights of supports and views in the predictions of n views.

  A row of both matrices together has the sum 1.

  Attributes:
    labelled: [n, N], weights of the supports.
    unlabelled: [n, M], weights of the views of all devices; 0 for a view
      itself.
    in_domain: [n] in (0, 1], prior probability of a known class, by the nearest
      support.
  """

  labelled: jax.Array
  unlabelled: jax.Array
  in_domain: jax.Array


def in_domain_probability(
  max_similarity: jax.Array, *, temperature: float
) -> jax.Array:
  """Computes the probability of a known class: exp((max s − 1) / τ).

  Args:
    max_similarity: [...] largest cosine to any support, in [−1, 1].
    temperature: τ > 0 of the prior (RoPAWS: 3 for ImageNet, 0.1 for CIFAR-10).

  Returns:
    [...] in (0, 1]; 1 for a copy of a support.

  Examples:
    >>> import jax.numpy as jnp
    >>> in_domain_probability(jnp.array([1.0, 0.7]), temperature=0.3).tolist()
    [1.0, 0.3678794503211975]
  """
  similarities = similarity.at_least_float32(jnp.asarray(max_similarity))
  # A cosine may exceed 1 by rounding.
  return jnp.exp((jnp.minimum(similarities, 1) - 1) / temperature)


def label_weight(
  label_mass_ratio: float, *, num_unlabelled: float, num_supports: float
) -> float:
  """Computes the factor r of the kernels of labelled images.

  Args:
    label_mass_ratio: weight of all supports relative to that of all unlabelled
      images, at equal distances.
    num_unlabelled: M, unlabelled images of a view.
    num_supports: N.

  Returns:
    ratio · M / N. (The published trainer takes the unlabelled images of one
    device for M and the images of one class for N: 45.7 in place of 3.05 for
    ImageNet, where labels then have 75 times the weight of the rest, not 5.)
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
  """Computes the weights of supports and other views for each view.

  Args:
    views: [n, D] embeddings, some of `all_views`.
    all_views: [M, D], one view of every unlabelled image of the step.
    supports: [N, D].
    first: row of the first view in `all_views`; the others follow it.
    temperature: τ of the kernels.
    prior_temperature: temperature of `in_domain_probability`.
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
  """Computes the probability of each class; their sum is that of any class.

  The solution of P = D (A_L Y + A_U P), with D the in-domain prior on the
  diagonal, by iteration: rows of D A_U have sums below 1, so that every
  iteration approaches the solution from below. An iteration takes one
  all-gather; every device would have to compute all of a linear solve.

  Args:
    kernels: for L views of this device's n images, stacked: [L, n, ...].
    support_labels: [N, C] label rows.
    num_iterations: iterations of the fixed point; 0 ignores the unlabelled
      images.
    axis_name: mesh axes over which images are spread.

  Returns:
    [L, n, C], not negative; rows have the sum p(known) ≤ 1.
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

  def iterate(unused_i: int, current: jax.Array) -> jax.Array:
    others = current
    if axis_name is not None:
      others = jax.lax.all_gather(current, axis_name, axis=1, tiled=True)
    from_views = jnp.matmul(kernels.unlabelled, others, precision=highest)
    return prior * (votes + from_views)

  return jax.lax.fori_loop(0, num_iterations, iterate, prior * votes)


def spread_missing(posterior: jax.Array) -> jax.Array:
  """Distributes the missing probability equally to all classes [..., C]."""
  missing = 1 - jnp.sum(posterior, axis=-1, keepdims=True)
  return posterior + missing / posterior.shape[-1]
