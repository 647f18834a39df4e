"""Section `method` of Pseudo-Label."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from paws_jax.config import fields
from paws_jax.config.methods import class_head


@dataclasses.dataclass(frozen=True)
class Config(class_head.Unlabelled):
  """Fields of Pseudo-Label (2013), as FixMatch's public code has it."""

  per_labelled: ClassVar[bool] = False

  name: str = fields.field("pseudo_label")
  # An unlabelled image counts where a class has more than this probability.
  threshold: float = fields.field(0.95, class_head.THRESHOLD)
  # Share of the run in which the weight of unlabelled images rises from 0.
  ramp_share: float = fields.field(0.4, fields.PROBABILITY)
