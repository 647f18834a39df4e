"""Section `method` of SimCLR."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config.methods import base


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of SimCLR (2020)."""

  allows_bn_groups = True

  name: str = fields.field("simclr")
  # No gradient through the keys of NT-Xent, as in the public code.
  detached_keys: bool = fields.field(False)
  # Report the feature rank at every step; it trains nothing.
  health_metrics: bool = fields.field(True)
