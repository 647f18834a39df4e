"""What to lower when the devices' memory does not suffice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import jax
import ml_collections


def training(
  config: ml_collections.ConfigDict,
) -> contextlib.AbstractContextManager[None]:
  """Advises who trains by this recipe; see `given`."""
  return given(
    f"Lower train.batch_size (now {config.train.batch_size}) or "
    f"support.images_per_class (now {config.support.images_per_class}), "
    f"{_remat(config)}, lower eval.batch_size (now {config.eval.batch_size}) "
    "if it happened in an evaluation, or use more devices."
  )


def finetuning(
  config: ml_collections.ConfigDict,
) -> contextlib.AbstractContextManager[None]:
  """Advises who fine-tunes; see `given`."""
  return given(
    f"Lower finetune.batch_size (now {config.finetune.batch_size}) or, for "
    "'suncet', support.images_per_class (now "
    f"{config.support.images_per_class}), {_remat(config)}, or use more "
    "devices."
  )


def evaluating(
  config: ml_collections.ConfigDict | None,
) -> contextlib.AbstractContextManager[None]:
  """Advises who embeds images only; see `given`.

  Args:
    config: the recipe; None: there is only a saved classifier.
  """
  if config is None:
    return given(
      "Lower batch_size in the classifier.json of the classifier, or use "
      "another device."
    )
  return given(
    f"Lower eval.batch_size (now {config.eval.batch_size}), or use more "
    "devices."
  )


@contextlib.contextmanager
def given(remedy: str) -> Iterator[None]:
  """Turns "out of memory" into advice what to lower.

  Args:
    remedy: whole sentences.

  Raises:
    MemoryError: with the remedy and the first line of what XLA says.
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


def _remat(config: ml_collections.ConfigDict) -> str:
  return f"set train.remat to 'dots' or 'all' (now {config.train.remat!r})"
