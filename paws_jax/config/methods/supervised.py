"""Section `method` of supervised training."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config import support as support_lib
from paws_jax.config.methods import base


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of training on the labelled images alone."""

  name: str = fields.field("supervised")

  def check_support(self, support: support_lib.Support) -> None:
    """Refuses supports without others of the same class."""
    base.check_pairs(support, self.name)
