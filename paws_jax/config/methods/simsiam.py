"""Section `method` of SimSiam."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config.methods import base


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of SimSiam (2021)."""

  allows_bn_groups = True

  name: str = fields.field("simsiam")
  # Keep the learning rate of the prediction head at its peak.
  constant_prediction_lr: bool = fields.field(True)
  # Report feature rank and spread of the projections; they train nothing.
  health_metrics: bool = fields.field(True)
