"""Parts of the losses of a classifier: probabilities, masks, cross-entropies.

The losses of FixMatch, UDA, Pseudo-Label, Mean Teacher and Meta Pseudo Labels
are made of them. Probabilities are exp(z − max) / sum: the exponential of a log
softmax gives .49999… for one half, which a threshold of .5 would leave out.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax import errors
from paws_jax.losses import similarity


def probabilities(logits: jax.Array, temperature: float = 1.0) -> jax.Array:
  """Computes softmax(logits / temperature), [..., K], without gradient."""
  logits = jax.lax.stop_gradient(similarity.at_least_float32(logits))
  return jax.nn.softmax(logits / temperature, axis=-1)


def confident(
  probs: jax.Array, *, threshold: float | jax.Array, strict: bool
) -> jax.Array:
  """Selects the rows whose largest probability reaches a threshold.

  Args:
    probs: [U, K].
    threshold: in (0, 1].
    strict: whether a probability must exceed it.

  Returns:
    [U] bool.

  Raises:
    errors.InputError: the threshold is out of range.
  """
  check_threshold(threshold)
  largest = jnp.max(probs, axis=-1)
  return largest > threshold if strict else largest >= threshold


def check_threshold(threshold: float | jax.Array) -> None:
  """Refuses a number outside of (0, 1]; traced values are not checked."""
  if isinstance(threshold, int | float) and not 0 < threshold <= 1:
    raise errors.InputError(
      f"threshold is {threshold:g}: it is compared with a probability, and "
      "must be greater than 0 and at most 1."
    )


def cross_entropy(targets: jax.Array, logits: jax.Array) -> jax.Array:
  """Cross-entropy [n] of rows of probabilities [n, K] and logits [n, K]."""
  log_probs = jax.nn.log_softmax(similarity.at_least_float32(logits), axis=-1)
  return -jnp.sum(targets * log_probs, axis=-1)


def label_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, smoothing: float = 0.0
) -> jax.Array:
  """Cross-entropy [n] of logits [n, K] and labels, integers [n].

  Args:
    logits: [n, K].
    labels: [n], in 0..K−1.
    smoothing: share of a label that is spread over all classes.
  """
  classes = jnp.arange(logits.shape[-1])
  rows = similarity.label_rows(labels, classes, smoothing=smoothing)
  return cross_entropy(rows.astype(logits.dtype), logits)


def divergence(targets: jax.Array, logits: jax.Array) -> jax.Array:
  """Computes KL(softmax(targets) ‖ softmax(logits)) of rows of logits, [n].

  Targets have no gradient.
  """
  targets = jax.lax.stop_gradient(similarity.at_least_float32(targets))
  log_targets = jax.nn.log_softmax(targets, axis=-1)
  probs = jax.nn.softmax(targets, axis=-1)
  entropy = -jnp.sum(probs * log_targets, axis=-1)
  return cross_entropy(probs, logits) - entropy


def masked_mean(each: jax.Array, mask: jax.Array) -> jax.Array:
  """Averages over all rows, of which those without mask count 0."""
  return jnp.mean(jnp.where(mask, each, 0))


def check_logits(*arrays: jax.Array, names: str) -> None:
  """Refuses arrays that are not all [n, K].

  Raises:
    ValueError: names them and their shapes.
  """
  shapes = [array.shape for array in arrays]
  if any(len(shape) != 2 or shape != shapes[0] for shape in shapes):
    raise ValueError(
      f"{names} must be [n, K], of the same shape; got "
      f"{' and '.join(map(str, shapes))}."
    )


def check_labels(logits: jax.Array, labels: jax.Array) -> None:
  """Refuses labels that are not one for each row of logits [n, K].

  Raises:
    ValueError: names their shapes.
  """
  if logits.ndim != 2 or labels.shape != logits.shape[:1]:
    raise ValueError(
      f"logits must be [n, K] and labels [n]; got shapes {logits.shape} and "
      f"{labels.shape}."
    )
