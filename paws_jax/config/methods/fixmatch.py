"""Section `method` of FixMatch."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config.methods import class_head


@dataclasses.dataclass(frozen=True)
class Config(class_head.Unlabelled):
  """Fields of FixMatch (2020)."""

  name: str = fields.field("fixmatch")
  # An unlabelled image counts where a class of its weak view has at least this
  # probability.
  threshold: float = fields.field(0.95, class_head.THRESHOLD)
  # Divides the logits of weak views before that; of hard targets it changes
  # nothing else.
  target_temperature: float = fields.field(1.0, fields.TEMPERATURE)
  # Whether the target is the most probable class, not all probabilities.
  hard: bool = fields.field(True)
