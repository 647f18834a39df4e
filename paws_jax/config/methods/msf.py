"""Section `method` of MSF."""

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
  """Fields of MSF (2021)."""

  allows_bn_groups = True

  name: str = fields.field("msf")
  # Nearest rows of the bank that are averaged, the image's own among them.
  k: int = fields.field(5, fields.between(1, 4096))
  # Targets in the memory bank, those of the step among them; rounded up to
  # entire steps.
  bank_size: int = fields.field(128_000, fields.AT_LEAST_ONE)
  # Weight of the old value in the target network, constant.
  momentum: float = fields.field(0.99, fields.PROBABILITY)
  # Report feature rank and spread of the targets; they train nothing.
  health_metrics: bool = fields.field(True)

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Refuses a bank without room for a batch or the nearest rows."""
    if self.bank_size < recipe.train.batch_size:
      raise errors.InputError(
        f"method.bank_size is {self.bank_size} but train.batch_size is "
        f"{recipe.train.batch_size}: the bank must hold the targets of at "
        "least one step."
      )
    if self.k > self.bank_size:
      raise errors.InputError(
        f"method.k is {self.k} but method.bank_size is {self.bank_size}: there "
        "are not so many rows to choose from."
      )
