"""Training methods: from the views of a step to a loss."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax import errors
from paws_jax.methods import base
from paws_jax.methods import paws
from paws_jax.methods import priors
from paws_jax.methods import ropaws
from paws_jax.methods import simclr
from paws_jax.methods import suncet
from paws_jax.methods import supervised

METHODS = {
  "paws": paws.Paws,
  "ropaws": ropaws.Ropaws,
  "simclr": simclr.Simclr,
  "suncet": suncet.Suncet,
  "supervised": supervised.Supervised,
}


def create(
  section: Mapping[str, Any],
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
    section: the recipe's `method`.
    encoder: `models.Encoder`.
    label_smoothing: of the support labels.
    remat: the recipe's `train.remat`.
    axis_name: mesh axes when the loss runs inside `shard_map`.
    num_classes: of the data; None: not known, and not checked.
    class_counts: labelled images of each class; None: not known, as when
      nothing but shapes matters.

  Returns:
    One of `METHODS`; what it does is written in `methods.method`.

  Raises:
    TypeError: for an unknown field, by name.
    ValueError: for an unknown method, or a prior that does not fit the data.
  """
  config = base.MethodConfig(**section)
  if config.name not in METHODS:
    raise errors.InputError(
      f"method.name is {config.name!r}; known are {', '.join(METHODS)}."
    )
  kind = METHODS[config.name]
  options = {}
  if issubclass(kind, paws.Paws):
    options["prior"] = priors.of_classes(
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
  """A method that counts in steps what its recipe gives in epochs.

  Args:
    created: of `create`; a method without section `method` stays as it is.
    steps_per_epoch: of the data, which a method does not know.
  """
  section = getattr(created, "config", None)
  if not isinstance(section, base.MethodConfig):
    return created
  return dataclasses.replace(created, config=section.in_steps(steps_per_epoch))


def in_domain_temperature(section: Mapping[str, Any]) -> float | None:
  """Temperature of `losses.in_domain_probability` of single images.

  Args:
    section: the recipe's `method`, with the name of one of `METHODS`.

  Returns:
    A number > 0; None for a method to which every image is of a known class.
  """
  if not issubclass(METHODS[section["name"]], ropaws.Ropaws):
    return None
  return float(section["in_domain_temperature"])
