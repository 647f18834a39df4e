"""Training methods: from the views of a step to a loss."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax import config as config_lib
from paws_jax.config import methods as sections


class _Methods(Mapping[str, Any]):
  """The class of each method by its name, imported when it is first used."""

  def __getitem__(self, name: str) -> Any:
    module, _, symbol = sections.METHODS[name].rpartition(".")
    return getattr(importlib.import_module(module), symbol)

  def __iter__(self) -> Iterator[str]:
    return iter(sections.METHODS)

  def __len__(self) -> int:
    return len(sections.METHODS)


METHODS = _Methods()


def create(
  section: config_lib.Method | Mapping[str, Any],
  *,
  encoder: Any,
  label_smoothing: float,
  remat: str = "none",
  axis_name: Any = None,
  num_classes: int | None = None,
  class_counts: Sequence[int] | None = None,
) -> Any:
  """Builds the method of a recipe.

  Args:
    section: the recipe's `method`, or its fields.
    encoder: `models.Encoder`.
    label_smoothing: of the support labels.
    remat: the recipe's `train.remat`.
    axis_name: mesh axes when the loss runs inside `shard_map`.
    num_classes: of the data; None: not known, and not checked.
    class_counts: labelled images of each class; None: not known, where only
      shapes matter.

  Returns:
    One of `METHODS`; `methods.base` has the contract.

  Raises:
    errors.UnknownFieldError: a field that the method does not have, by name.
    errors.InputError: an unknown method, or a prior that does not fit the data.
  """
  config = sections.build(section)
  kind = METHODS[config.name]
  options = kind.fields_of_data(
    config, num_classes=num_classes, class_counts=class_counts
  )
  return kind(
    config=config,
    encoder=encoder,
    label_smoothing=label_smoothing,
    remat=remat,
    axis_name=axis_name,
    **options,
  )


def in_steps(created: Any, *, steps_per_epoch: int) -> Any:
  """Converts fields of a method that count epochs to steps.

  Args:
    created: a result of `create`; without a section `method` it is unchanged.
    steps_per_epoch: of the data, which a method does not know.
  """
  section = getattr(created, "config", None)
  if not isinstance(section, config_lib.Method):
    return created
  return dataclasses.replace(created, config=section.in_steps(steps_per_epoch))
