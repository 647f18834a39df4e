"""Section `support` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Support(fields.Section):
  """The labelled images of a step."""

  # Distinct classes drawn in a step (0: all that the data has), and labelled
  # images of each.
  classes_per_step: int = fields.field(
    960, ("0 (all classes) or at least 2", lambda x: x == 0 or x >= 2)
  )
  images_per_class: int = fields.field(7, fields.AT_LEAST_ONE)
  # Differently augmented views of each drawn image.
  num_views: int = fields.field(1, fields.AT_LEAST_ONE)
  label_smoothing: float = fields.field(0.1, fields.FRACTION)
  # Lets a class with n < images_per_class labelled images stand in with each
  # of them floor or ceil(images_per_class / n) times, differently augmented.
  with_replacement: bool = fields.field(False)
