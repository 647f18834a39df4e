"""Section `optim` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Optim(fields.Section):
  """Optimizer and learning-rate schedule."""

  # "lars", "sgd" or "adamw".
  name: str = fields.field("lars")
  # Learning rate at the first step.
  start_lr: float = fields.field(0.3, fields.NOT_NEGATIVE)
  # Learning rate after warm-up.
  peak_lr: float = fields.field(6.4, fields.POSITIVE)
  # Learning rate at the last step, to which a cosine falls.
  final_lr: float = fields.field(0.064, fields.NOT_NEGATIVE)
  # Epochs in which the learning rate rises from start_lr to peak_lr.
  warmup_epochs: float = fields.field(10.0, fields.NOT_NEGATIVE)
  # Acts on kernels, not on biases and BatchNorm.
  weight_decay: float = fields.field(1e-6, fields.NOT_NEGATIVE)
  # Of "lars" and "sgd"; the first-moment decay of "adamw".
  momentum: float = fields.field(0.9, fields.FRACTION)
  # Second-moment decay of AdamW (its first is `momentum`).
  b2: float = fields.field(0.999, fields.FRACTION)
  # Nesterov's momentum instead of the ordinary one.
  nesterov: bool = fields.field(False)
  # Of LARS: length of a kernel's update over that of its weights, where the
  # learning rate is 1.
  trust_coefficient: float = fields.field(1e-3, fields.POSITIVE)
