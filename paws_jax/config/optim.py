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
  # After the warm-up: "cosine", half a period down to final_lr; "cosine_7_16",
  # peak_lr times the cosine of 7/16 of a half turn (FixMatch), and "constant",
  # neither of which reads final_lr.
  schedule: str = fields.field(
    "cosine", fields.one_of("cosine", "cosine_7_16", "constant")
  )
  # Epochs in which the learning rate rises from start_lr to peak_lr.
  warmup_epochs: float = fields.field(10.0, fields.NOT_NEGATIVE)
  # Acts on the parameters that `decayed` names.
  weight_decay: float = fields.field(1e-6, fields.NOT_NEGATIVE)
  # What weight decay and adaptation by LARS act on: "kernels", not biases and
  # BatchNorm, or "all".
  decayed: str = fields.field("kernels", fields.one_of("kernels", "all"))
  # Of "lars" and "sgd"; the first-moment decay of "adamw".
  momentum: float = fields.field(0.9, fields.FRACTION)
  # Whether the momentum buffer holds gradients times their learning rate
  # (PAWS), or gradients alone (PyTorch). Only for "lars" and "sgd".
  lr_in_momentum: bool = fields.field(True)
  # Second-moment decay of AdamW (its first is `momentum`).
  b2: float = fields.field(0.999, fields.FRACTION)
  # Nesterov's momentum instead of the ordinary one.
  nesterov: bool = fields.field(False)
  # Of LARS: length of a kernel's update over that of its weights, where the
  # learning rate is 1.
  trust_coefficient: float = fields.field(1e-3, fields.POSITIVE)
  # LARS divides by |g| + decay |w| ("sum", PAWS and SwAV) or by the norm of the
  # decayed gradient ("decayed", BYOL).
  lars_norm: str = fields.field("sum", fields.one_of("sum", "decayed"))
