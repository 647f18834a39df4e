"""Section `optim` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Optim(fields.Section):
  """Optimizer and learning-rate schedule."""

  # "lars", "sgd" or "adamw".
  name: str = fields.field("lars")
  # Learning rate at the first step, after warm-up, and at the last step.
  start_lr: float = fields.field(0.3, fields.NOT_NEGATIVE)
  peak_lr: float = fields.field(6.4, fields.POSITIVE)
  final_lr: float = fields.field(0.064, fields.NOT_NEGATIVE)
  warmup_epochs: float = fields.field(10.0, fields.NOT_NEGATIVE)
  weight_decay: float = fields.field(1e-6, fields.NOT_NEGATIVE)
  momentum: float = fields.field(0.9, fields.FRACTION)
  # Second-moment decay of AdamW (its first is `momentum`).
  b2: float = fields.field(0.999, fields.FRACTION)
  nesterov: bool = fields.field(False)
  trust_coefficient: float = fields.field(1e-3, fields.POSITIVE)
