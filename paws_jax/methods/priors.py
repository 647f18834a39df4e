"""What the mean prediction of PAWS is drawn to by me-max."""

from __future__ import annotations

from collections.abc import Sequence

from paws_jax import errors
from paws_jax.methods import base


def of_classes(
  config: base.MethodConfig,
  *,
  num_classes: int | None,
  class_counts: Sequence[int] | None,
) -> tuple[float, ...] | None:
  """Resolves `method.prior`.

  Args:
    config: section `method`.
    num_classes: of the data; None: not known, and not checked.
    class_counts: labelled images of each class; None: not known.

  Returns:
    K positive numbers with sum 1, or None for the uniform prior (or where the
    counts are not known).

  Raises:
    ValueError: for an unknown name, and a given prior of the wrong length.
  """
  if config.prior == "uniform":
    return None
  if config.prior == "labels":
    return None if class_counts is None else _shares(class_counts)
  if config.prior != "given":
    raise errors.InputError(
      f"method.prior is {config.prior!r}; known are uniform, labels, given."
    )
  probs = tuple(config.prior_probs)
  if num_classes is not None and len(probs) != num_classes:
    raise errors.InputError(
      f"method.prior_probs has {len(probs)} numbers but the data has "
      f"{num_classes} classes: give one for each, in the order of the classes."
    )
  return _shares(probs)


def _shares(parts: Sequence[float]) -> tuple[float, ...]:
  """Scales to a sum of 1; a recipe's numbers may have been rounded."""
  total = sum(parts)
  return tuple(part / total for part in parts)
