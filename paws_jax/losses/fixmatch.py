"""FixMatch's loss of unlabelled images.

Reference:
  Sohn et al., FixMatch: Simplifying Semi-Supervised Learning with Consistency
  and Confidence, 2020 (arXiv 2001.07685).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import consistency


def fixmatch_loss(
  weak_logits: jax.Array,
  strong_logits: jax.Array,
  *,
  threshold: float,
  temperature: float = 1.0,
  hard: bool = True,
) -> tuple[jax.Array, jax.Array]:
  """Computes the cross-entropy of strong views and their weak views' classes.

  Args:
    weak_logits: [U, K] of the weak views; without gradient.
    strong_logits: [U, K] of the strong views of the same images.
    threshold: in (0, 1]; images whose weak view has no class of at least this
      probability do not count.
    temperature: divides the weak logits before the softmax, for the threshold
      and for soft targets.
    hard: whether the target is the most probable class (the lowest of equal
      ones), or all probabilities.

  Returns:
    The mean over all U images, those that do not count as 0, without its
    weight; and bool [U], the images that count.

  Raises:
    ValueError: the shapes are inconsistent.
    errors.InputError: a threshold out of range.
  """
  names = "weak_logits and strong_logits"
  consistency.check_logits(weak_logits, strong_logits, names=names)
  probs = consistency.probabilities(weak_logits, temperature)
  mask = consistency.confident(probs, threshold=threshold, strict=False)
  if hard:
    pseudo = jnp.argmax(probs, axis=-1)
    each = consistency.label_cross_entropy(strong_logits, pseudo)
  else:
    each = consistency.cross_entropy(probs, strong_logits)
  return consistency.masked_mean(each, mask), mask
