"""Section `method` of Mean Teacher."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from paws_jax.config import fields
from paws_jax.config.methods import class_head


@dataclasses.dataclass(frozen=True)
class Config(class_head.Unlabelled):
  """Fields of Mean Teacher (2017), as FixMatch's public code has it.

  But the teacher is evaluated with the statistics of its own passes, not with
  those of the student.
  """

  per_labelled: ClassVar[bool] = False

  name: str = fields.field("mean_teacher")
  # Weight of the consistency with the teacher, the average of the weights.
  unlabelled_weight: float = fields.field(50.0, fields.NOT_NEGATIVE)
  # Share of the run in which that weight rises from 0.
  ramp_share: float = fields.field(0.4, fields.PROBABILITY)
  # How it rises: "linear", or "exp" as exp(-5 (1 - t)^2) in the original.
  ramp: str = fields.field("linear", fields.one_of("linear", "exp"))
  # "mse": squared difference of probabilities; "kl": KL(teacher || student).
  consistency: str = fields.field("mse", fields.one_of("mse", "kl"))
