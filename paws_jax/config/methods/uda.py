"""Section `method` of UDA."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config.methods import class_head


@dataclasses.dataclass(frozen=True)
class Config(class_head.Unlabelled):
  """Fields of UDA (2019)."""

  name: str = fields.field("uda")
  # Weight of the old value in the average of the weights, which is evaluated.
  ema_decay: float = fields.field(0.9999, fields.FRACTION)
  # The running statistics of BatchNorm are averaged, too, not copied.
  ema_statistics: bool = fields.field(True)
  # Divides the logits of weak views in the targets.
  target_temperature: float = fields.field(0.4, fields.TEMPERATURE)
  # An unlabelled image counts where a class of its weak view has more than this
  # probability.
  threshold: float = fields.field(0.8, class_head.THRESHOLD)
  # That probability is taken without ("raw") or with the temperature.
  mask_on: str = fields.field("raw", fields.one_of("raw", "sharpened"))
  # Whether a probability must exceed the threshold, not only reach it.
  strict: bool = fields.field(True)
  # Weight of the entropy of weak views.
  entropy_weight: float = fields.field(0.0, fields.NOT_NEGATIVE)
  # Training signal annealing: labels that are predicted with more than a
  # threshold do not count, which rises from 1 / K to 1 over the run: "linear",
  # "exp" (late) or "log" (early).
  tsa: str = fields.field("none", fields.one_of("none", "linear", "exp", "log"))
