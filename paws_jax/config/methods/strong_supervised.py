"""Section `method` of supervised training with all that helps it."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from paws_jax.config import fields
from paws_jax.config.methods import class_head


@dataclasses.dataclass(frozen=True)
class Config(class_head.ClassHead):
  """Fields of a classifier that is trained on labelled images alone."""

  per_labelled: ClassVar[bool] = False

  name: str = fields.field("strong_supervised")
  # Images are mixed with the next one of the step, with a weight drawn from
  # Beta(mixup, mixup); 0: they are not (Zhang et al., 2017).
  mixup: float = fields.field(0.2, fields.NOT_NEGATIVE)
  # A rectangle of the next image covers a share of the area, 1 less a number
  # drawn from Beta(cutmix, cutmix); 0: it does not (Yun et al., 2019). With
  # both, each image is mixed in one of the two ways.
  cutmix: float = fields.field(1.0, fields.NOT_NEGATIVE)
