"""Training methods: from the views of a step to a loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paws_jax.methods import method
from paws_jax.methods import paws
from paws_jax.methods import supervised

METHODS = {"paws": paws.Paws, "supervised": supervised.Supervised}


def create(
  section: Mapping[str, Any],
  *,
  encoder: Any,
  label_smoothing: float,
  remat: str = "none",
  axis_name: Any = None,
) -> paws.Paws | supervised.Supervised:
  """Builds the method of a recipe.

  Args:
    section: the recipe's `method`.
    encoder: `models.Encoder`.
    label_smoothing: of the support labels.
    remat: the recipe's `train.remat`.
    axis_name: mesh axes when the loss runs inside `shard_map`.

  Raises:
    TypeError: for an unknown field, by name.
    ValueError: for an unknown method.
  """
  config = method.MethodConfig(**section)
  if config.name not in METHODS:
    raise ValueError(
      f"method.name is {config.name!r}; known are {', '.join(METHODS)}."
    )
  return METHODS[config.name](
    config=config,
    encoder=encoder,
    label_smoothing=label_smoothing,
    remat=remat,
    axis_name=axis_name,
  )
