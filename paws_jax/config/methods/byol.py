"""Section `method` of BYOL."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config.methods import base


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of BYOL (2020)."""

  allows_bn_groups = True

  name: str = fields.field("byol")
  # Weight of the old value in the average network at the first step; it rises
  # to 1 at the last one, along half a cosine.
  momentum: float = fields.field(0.996, fields.PROBABILITY)
  # Report feature rank and spread of the projections; they train nothing.
  health_metrics: bool = fields.field(True)
