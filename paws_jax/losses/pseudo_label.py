"""The loss of pseudo-labels: confident predictions are taken for labels.

Reference:
  Lee, Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method
  for Deep Neural Networks, 2013.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax.losses import consistency


def pseudo_label_loss(
  logits: jax.Array, *, threshold: float, strict: bool = True
) -> tuple[jax.Array, jax.Array]:
  """Computes the cross-entropy of predictions and their own classes.

  Args:
    logits: [U, K] of unlabelled images; they make the labels and learn them.
    threshold: in (0, 1]; images without a class of a larger probability do not
      count.
    strict: whether a probability must exceed the threshold.

  Returns:
    The mean over all U images, those that do not count as 0, without its
    weight; and bool [U], the images that count.

  Raises:
    ValueError: logits are not [U, K].
    errors.InputError: a threshold out of range.
  """
  consistency.check_logits(logits, names="logits")
  probs = consistency.probabilities(logits)
  mask = consistency.confident(probs, threshold=threshold, strict=strict)
  pseudo = jnp.argmax(probs, axis=-1)
  each = consistency.label_cross_entropy(logits, pseudo)
  return consistency.masked_mean(each, mask), mask
