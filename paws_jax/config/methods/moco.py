"""Section `method` of MoCo."""

from __future__ import annotations

import dataclasses
import typing

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config.methods import base

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of MoCo v2 (2020)."""

  allows_bn_groups = True

  name: str = fields.field("moco")
  # Divides cosine similarities, also in evaluation by soft nearest neighbours.
  temperature: float = fields.field(0.2, fields.TEMPERATURE)
  # Weight of the old value in the average network, constant.
  momentum: float = fields.field(0.999, fields.PROBABILITY)
  # Keys of earlier steps in the queue; at least those of a step.
  queue_size: int = fields.field(65536, fields.AT_LEAST_ONE)
  # Report feature rank and spread of the queries; they train nothing.
  health_metrics: bool = fields.field(True)

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Refuses a queue that is smaller than a batch."""
    if self.queue_size < recipe.train.batch_size:
      raise errors.InputError(
        f"method.queue_size is {self.queue_size} but train.batch_size is "
        f"{recipe.train.batch_size}: the queue must hold the keys of at least "
        "one step."
      )
