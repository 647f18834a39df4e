"""Section `views` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Views(fields.Section):
  """Crops of each unlabelled image, and how they are augmented.

  Sides are in pixels, scales are area fractions.
  """

  num_large: int = fields.field(2, fields.AT_LEAST_ONE)
  large_size: int = fields.field(224, fields.AT_LEAST_ONE)
  large_scale: tuple[float, float] = fields.field((0.14, 1.0), fields.SCALE)
  num_small: int = fields.field(6, fields.NOT_NEGATIVE)
  small_size: int = fields.field(96, fields.AT_LEAST_ONE)
  small_scale: tuple[float, float] = fields.field((0.05, 0.14), fields.SCALE)
  # Width over height of a crop, drawn log-uniformly.
  aspect_ratio: tuple[float, float] = fields.field((3 / 4, 4 / 3), fields.RANGE)
  flip_probability: float = fields.field(0.5, fields.PROBABILITY)
  # Rotation, uniform in +-degrees; cost grows with the 4th power of the side,
  # so it is meant for images of at most 64 pixels.
  rotation_degrees: float = fields.field(
    0.0, ("in [0, 180]", lambda x: 0 <= x <= 180)
  )
  # Brightness, contrast, saturation 0.8 s and hue 0.2 s, in random order.
  jitter_strength: float = fields.field(1.0, fields.NOT_NEGATIVE)
  jitter_probability: float = fields.field(0.8, fields.PROBABILITY)
  grey_probability: float = fields.field(0.2, fields.PROBABILITY)
  blur_probability: float = fields.field(0.5, fields.PROBABILITY)
  # Pillow radius (standard deviation) in pixels, drawn uniformly.
  blur_radius: tuple[float, float] = fields.field((0.1, 2.0), fields.RANGE)
  solarize_probability: float = fields.field(0.0, fields.PROBABILITY)
  equalize_probability: float = fields.field(0.0, fields.PROBABILITY)
  # Per channel, in units of the full range; as many values as channels.
  mean: tuple[float, ...] = fields.field(
    (0.485, 0.456, 0.406), ("one number per channel", lambda x: len(x) > 0)
  )
  std: tuple[float, ...] = fields.field((0.229, 0.224, 0.225), fields.POSITIVES)
  # Evaluation: short side resized to this (0: not resized; only where images
  # are in memory), then the centre `large_size` square.
  eval_resize: int = fields.field(256, fields.NOT_NEGATIVE)

  def check(self) -> None:
    """Refuses small crops that are not small, and unequal channels."""
    if self.num_small and self.small_size > self.large_size:
      raise errors.InputError(
        f"views.num_small is {self.num_small} and views.small_size is "
        f"{self.small_size}, but large crops have {self.large_size} pixels "
        "(views.large_size): make small ones no larger."
      )
    if len(self.mean) != len(self.std):
      raise errors.InputError(
        f"views.mean has {len(self.mean)} values and views.std "
        f"{len(self.std)}: give one of each per channel."
      )
