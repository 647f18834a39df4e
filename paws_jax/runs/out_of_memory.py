"""Advice for a task that does not fit into the memory of the devices."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax

from paws_jax import config as config_lib


def training(
  recipe: config_lib.Recipe,
) -> contextlib.AbstractContextManager[None]:
  """Gives advice for training by a recipe; see `advising`."""
  return advising(
    f"Lower train.batch_size (now {recipe.train.batch_size}) or "
    f"{_supports(recipe)}, {_remat(recipe)}, {_size(recipe)}, lower "
    f"eval.batch_size (now {recipe.eval.batch_size}) if it happened in an "
    "evaluation, or use more devices."
  )


def finetuning(
  recipe: config_lib.Recipe,
) -> contextlib.AbstractContextManager[None]:
  """Gives advice for fine-tuning; see `advising`."""
  return advising(
    f"Lower finetune.batch_size (now {recipe.finetune.batch_size}) or, for "
    "'suncet', support.images_per_class (now "
    f"{recipe.support.images_per_class}), {_remat(recipe)}, or use more "
    "devices."
  )


def _supports(recipe: config_lib.Recipe) -> str:
  """The number of labelled images of a step, and its field."""
  name = recipe.support.size_field
  return f"support.{name} (now {getattr(recipe.support, name)})"


def evaluating(
  recipe: config_lib.Recipe | None, *, linear: bool = False
) -> contextlib.AbstractContextManager[None]:
  """Gives advice for tasks that only embed images; see `advising`.

  Args:
    recipe: the recipe; None when there is only a saved classifier.
    linear: whether a linear layer is trained on the features.
  """
  if recipe is None:
    return advising(
      "Lower batch_size in the classifier.json of the classifier, or use "
      "another device."
    )
  trains = ", set eval.linear_batch_size lower" if linear else ""
  return advising(
    f"Lower eval.batch_size (now {recipe.eval.batch_size}){trains}, or use "
    "more devices."
  )


@contextlib.contextmanager
def advising(remedy: str) -> Iterator[None]:
  """Turns an out-of-memory error of XLA into one with advice.

  Args:
    remedy: the advice, in sentences.

  Raises:
    MemoryError: with the advice and the first line of XLA's message.
  """
  try:
    yield
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    raise MemoryError(
      f"the devices' memory does not suffice. {remedy} "
      f"{str(error).splitlines()[0]}"
    ) from error


def _size(recipe: config_lib.Recipe) -> str:
  """Returns advice about what lies on the devices at once."""
  if recipe.allows_chunks:
    return f"raise train.chunks (now {recipe.train.chunks or 'auto'})"
  if recipe.model.trunk != "frozen":
    return "lower model.width"
  return (
    f"lower views.cached (now {recipe.views.cached}) or views.cached_support "
    f"(now {recipe.views.cached_support})"
  )


def _remat(recipe: config_lib.Recipe) -> str:
  return f"set train.remat to 'dots' or 'all' (now {recipe.train.remat!r})"
