"""The consistency loss of Mean Teacher.

Reference:
  Tarvainen and Valpola, Mean teachers are better role models: Weight-averaged
  consistency targets improve semi-supervised deep learning results, 2017
  (arXiv 1703.01780).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from paws_jax import errors
from paws_jax.losses import consistency
from paws_jax.losses import similarity

KINDS = ("mse", "kl")


def mean_teacher_loss(
  student_logits: jax.Array, teacher_logits: jax.Array, *, kind: str = "mse"
) -> jax.Array:
  """Compares predictions of a student with those of its teacher.

  Args:
    student_logits: [U, K].
    teacher_logits: [U, K] of other views of the same images; without gradient.
    kind: "mse", the squared difference of probabilities, the mean over rows and
      classes; or "kl", the mean over rows of KL(teacher ‖ student).

  Returns:
    Scalar ≥ 0, without its weight.

  Raises:
    ValueError: the shapes are inconsistent.
    errors.InputError: an unknown `kind`.
  """
  names = "student_logits and teacher_logits"
  consistency.check_logits(student_logits, teacher_logits, names=names)
  if kind == "kl":
    each = consistency.divergence(teacher_logits, student_logits)
    return jnp.mean(each)
  if kind != "mse":
    known = ", ".join(map(repr, KINDS))
    raise errors.InputError(f"kind is {kind!r}; known are {known}.")
  teacher = consistency.probabilities(teacher_logits)
  logits = similarity.at_least_float32(student_logits)
  return jnp.mean((jax.nn.softmax(logits, axis=-1) - teacher) ** 2)
