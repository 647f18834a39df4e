"""UDA's loss of unlabelled images, and its schedule of labelled ones.

Reference:
  Xie et al., Unsupervised Data Augmentation for Consistency Training, 2019
  (arXiv 1904.12848).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax import errors
from paws_jax.losses import consistency

MASKS = ("raw", "sharpened")
FORMS = ("kl", "ce")
SCHEDULES = ("none", "linear", "exp", "log")


def uda_loss(
  weak_logits: jax.Array,
  strong_logits: jax.Array,
  *,
  temperature: float,
  threshold: float,
  mask_on: str = "raw",
  strict: bool = True,
  form: str = "kl",
) -> tuple[jax.Array, jax.Array]:
  """Compares strong views with the sharpened predictions of weak views.

  Args:
    weak_logits: [U, K] of the weak views; without gradient.
    strong_logits: [U, K] of the strong views of the same images.
    temperature: divides the weak logits in the targets; below 1 it sharpens.
    threshold: in (0, 1], of the largest probability of the weak view.
    mask_on: the threshold is of the probabilities without ("raw") or with the
      temperature ("sharpened").
    strict: whether a probability must exceed the threshold.
    form: "kl", the divergence from the target, or "ce", the cross-entropy: they
      differ by the entropy of the target, which has no gradient.

  Returns:
    The mean over all U images, those that do not count as 0, without its
    weight; and bool [U], the images that count.

  Raises:
    ValueError: the shapes are inconsistent.
    errors.InputError: a threshold out of range, or an unknown `mask_on` or
      `form`.
  """
  names = "weak_logits and strong_logits"
  consistency.check_logits(weak_logits, strong_logits, names=names)
  _check_choice("mask_on", mask_on, MASKS)
  _check_choice("form", form, FORMS)
  mask_temperature = 1.0 if mask_on == "raw" else temperature
  probs = consistency.probabilities(weak_logits, mask_temperature)
  mask = consistency.confident(probs, threshold=threshold, strict=strict)
  if form == "kl":
    each = consistency.divergence(weak_logits / temperature, strong_logits)
  else:
    targets = consistency.probabilities(weak_logits, temperature)
    each = consistency.cross_entropy(targets, strong_logits)
  return consistency.masked_mean(each, mask), mask


def tsa_cross_entropy(
  logits: jax.Array, labels: jax.Array, *, threshold: float | jax.Array
) -> jax.Array:
  """Computes the cross-entropy of the labels that are not known yet.

  Training signal annealing: a row whose class has a probability above the
  threshold is left out, so that few labelled images are not fitted early.

  Args:
    logits: [B, K].
    labels: [B] integers.
    threshold: in (0, 1], of `tsa_threshold`.

  Returns:
    Scalar: the mean over the rows that are left; 0 where there are none.

  Raises:
    ValueError: the shapes are inconsistent.
    errors.InputError: a threshold out of range.
  """
  consistency.check_labels(logits, labels)
  each, kept = tsa_rows(logits, labels, threshold=threshold)
  return jnp.sum(each) / jnp.maximum(jnp.sum(kept), 1)


def tsa_rows(
  logits: jax.Array,
  labels: jax.Array,
  *,
  threshold: float | jax.Array,
  smoothing: float = 0.0,
) -> tuple[jax.Array, jax.Array]:
  """Computes the terms of `tsa_cross_entropy`, also of smoothed labels.

  Returns:
    [B] cross-entropies, 0 of rows that are left out; [B] bool: the others.
  """
  consistency.check_threshold(threshold)
  probs = consistency.probabilities(logits)
  own = jnp.take_along_axis(probs, labels[:, None], axis=-1)[:, 0]
  kept = ~(own > threshold)
  each = consistency.label_cross_entropy(logits, labels, smoothing=smoothing)
  return jnp.where(kept, each, 0), kept


def tsa_threshold(
  schedule: str, progress: float | jax.Array, *, num_classes: int
) -> jax.Array:
  """Computes the threshold of training signal annealing.

  Args:
    schedule: "linear", "exp" (late) or "log" (early): how it rises from 1 / K
      to 1; "none": 1, which leaves out nothing.
    progress: share of the training that is done, in [0, 1].
    num_classes: K.

  Raises:
    errors.InputError: an unknown schedule.
  """
  _check_choice("schedule", schedule, SCHEDULES)
  progress = jnp.clip(jnp.asarray(progress, float), 0, 1)
  if schedule == "none":
    return jnp.ones_like(progress)
  share = {
    "linear": progress,
    "exp": jnp.exp(5 * (progress - 1)),
    "log": 1 - jnp.exp(-5 * progress),
  }[schedule]
  return share * (1 - 1 / num_classes) + 1 / num_classes


def entropy(logits: jax.Array) -> jax.Array:
  """Computes the entropy of the prediction of each row of logits, [n]."""
  probs = jax.nn.softmax(logits, axis=-1)
  return consistency.cross_entropy(probs, logits)


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    known = ", ".join(map(repr, choices))
    raise errors.InputError(f"{name} is {value!r}; known are {known}.")
