"""Policies of RandAugment: which operations, how strong, how often."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

# Strength is counted in tenths of an operation's range.
LEVELS = 10


class Range(NamedTuple):
  """Values of an operation from strength 0 to 10.

  Attributes:
    low: at strength 0.
    high: at strength 10; a strength above 10 lies beyond it.
    signed: whether the sign is drawn.
    integer: whether the distance from `low` is cut to an integer.
    of_side: whether the value is a share of the image's side.
  """

  low: float = 0.0
  high: float = 0.0
  signed: bool = False
  integer: bool = False
  of_side: bool = False


@dataclasses.dataclass(frozen=True)
class Policy:
  """A distribution of augmentations.

  Attributes:
    ops: operations by name, of which each layer draws one uniformly; names are
      those of `augment.rand_augment.apply`.
    num_ops: layers: operations drawn for an image, with replacement.
    probability: of applying each, drawn uniformly between the two for an image.
    levels: least and greatest strength, drawn uniformly among integers.
    fill: gray level outside of a moved image.
    resample: "nearest", "bilinear" or "bicubic".
    cutout: side of the square that is painted over last, as a share of the
      image's side; 0: none.
    cutout_fill: gray level of that square.
  """

  ops: Mapping[str, Range] = dataclasses.field(hash=False)
  num_ops: int = 2
  probability: tuple[float, float] = (0.5, 0.5)
  levels: tuple[int, int] = (1, 9)
  fill: float = 0.0
  resample: str = "nearest"
  cutout: float = 0.5
  cutout_fill: float = 127.5


_GEOMETRIC = {
  "rotate": Range(0, 30, signed=True, integer=True),
  "shear_x": Range(0, 0.3, signed=True),
  "shear_y": Range(0, 0.3, signed=True),
}
_BLENDS = ("brightness", "color", "contrast", "sharpness")


def _translate(pixels: Range) -> dict[str, Range]:
  return {"translate_x": pixels, "translate_y": pixels}


def _blends(low: float, high: float) -> dict[str, Range]:
  return dict.fromkeys(_BLENDS, Range(low, high))


# Of the paper, and of FixMatch-pytorch.
_FIXMATCH = {
  "autocontrast": Range(),
  **_blends(0.05, 0.95),
  "equalize": Range(),
  "identity": Range(),
  "posterize": Range(4, 8, integer=True),
  "solarize": Range(256, 0, integer=True),
  **_GEOMETRIC,
  **_translate(Range(0, 0.3, signed=True, integer=True, of_side=True)),
}
# Of the published code, stronger.
_STRONGER = {
  **_FIXMATCH,
  **_blends(0.1, 1.9),
  "posterize": Range(4, 0, integer=True),
  **_translate(Range(0, 10, signed=True)),
}
_UDA = {
  **{name: op for name, op in _STRONGER.items() if name != "identity"},
  "invert": Range(),
  "cutout": Range(0, 0.625, of_side=True),
}
_MPL = {
  **{name: op for name, op in _STRONGER.items() if name != "identity"},
  "posterize": Range(0, 4, integer=True),
  # In the published code int(25.6 * 16) written into eight bits.
  "solarize": Range(153, 153),
  "rotate": Range(0, 30, signed=True),
  **_translate(Range(0, 0.125, signed=True, of_side=True)),
  "invert": Range(),
  "cutout": Range(0, 0.25, of_side=True),
}
# The same of strength 17.
_MPL_IMAGENET = {**_MPL, "solarize": Range(179, 179)}
_IMAGENET = {
  **_FIXMATCH,
  "invert": Range(),
  "solarize_add": Range(0, 110, integer=True),
}
# For digits of 8 to 28 pixels, gray, where 6 turned is 9.
_DIGITS = {
  **{name: op for name, op in _FIXMATCH.items() if name != "color"},
  "rotate": Range(0, 20, signed=True, integer=True),
  **_translate(Range(0, 0.1875, signed=True, of_side=True)),
}

# By name; what `rand_augment` of a view may be.
POLICIES: Mapping[str, Policy] = {
  # Policy A of FixMatch: the paper's.
  "fixmatch": Policy(_FIXMATCH),
  # Policy B: the one of FixMatch's published code.
  "fixmatch_released": Policy(_STRONGER, fill=127.5),
  # Policy C: of Meta Pseudo Labels for CIFAR-10.
  "mpl": Policy(
    _MPL,
    probability=(0.2, 0.8),
    levels=(16, 16),
    fill=128.0,
    cutout_fill=128.0,
  ),
  "mpl_imagenet": Policy(
    _MPL_IMAGENET,
    probability=(0.2, 0.8),
    levels=(17, 17),
    fill=128.0,
    cutout=0.0,
  ),
  "uda": Policy(_UDA),
  # Ours: none was published.
  "uda_imagenet": Policy(_UDA, cutout=0.0),
  "fixmatch_imagenet": Policy(
    _IMAGENET, levels=(0, 10), fill=128.0, cutout=0.0
  ),
  # Both operations of an image are applied: for supervised training.
  "strong": Policy(
    {**_STRONGER, "posterize": Range(8, 4, integer=True)},
    probability=(1.0, 1.0),
    fill=128.0,
    cutout=0.0,
  ),
  "digits": Policy(_DIGITS, cutout=0.375),
}
