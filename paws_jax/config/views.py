"""Section `views` of a recipe: crops by name, each with its augmentation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import rand_augment

# Crops of the labelled images: the spec of this name, else the first there is
# of _MAIN, else the first by name.
_SUPPORT = "support"
_MAIN = ("large", "weak")
_POLICY = fields.one_of(*rand_augment.POLICIES)


def _is_level_range(levels: tuple[float, ...]) -> bool:
  return len(levels) == 2 and 0 <= levels[0] <= levels[1] <= 256


@dataclasses.dataclass(frozen=True)
class ViewSpec(fields.Section):
  """Crops of one kind, and how they are augmented.

  An operation whose probability (or strength) is 0 costs nothing.
  """

  # Crops of each image; 0 leaves the spec out.
  count: int = fields.field(1, fields.between(0, 1000))
  # Side in pixels.
  size: int = fields.field(224, fields.SIDE)
  # Area fractions, drawn uniformly.
  scale: tuple[float, float] = fields.field((0.14, 1.0), fields.SCALE)
  # Width over height of a crop, drawn log-uniformly.
  aspect_ratio: tuple[float, float] = fields.field((3 / 4, 4 / 3), fields.RANGE)
  # Of a horizontal flip.
  flip_probability: float = fields.field(0.5, fields.PROBABILITY)
  # Rotation, uniform in +-degrees; cost grows with the 4th power of the side,
  # so it is meant for images of at most 64 pixels.
  rotation_degrees: float = fields.field(
    0.0, ("in [0, 180]", lambda x: 0 <= x <= 180)
  )
  # s of the color jitter: brightness and contrast by up to 0.8 s, saturation by
  # up to `jitter_saturation` times s, hue by up to 0.2 s, in random order.
  jitter_strength: float = fields.field(1.0, fields.NOT_NEGATIVE)
  # Range of saturation at strength 1.
  jitter_saturation: float = fields.field(0.8, fields.NOT_NEGATIVE)
  # Of the color jitter.
  jitter_probability: float = fields.field(0.8, fields.PROBABILITY)
  # Of becoming gray.
  grey_probability: float = fields.field(0.2, fields.PROBABILITY)
  # Of a Gaussian blur.
  blur_probability: float = fields.field(0.5, fields.PROBABILITY)
  # Pillow radius (standard deviation) in pixels, drawn uniformly.
  blur_radius: tuple[float, float] = fields.field((0.1, 2.0), fields.RANGE)
  # Of inverting the levels from `solarize_threshold` on.
  solarize_probability: float = fields.field(0.0, fields.PROBABILITY)
  # Level in [0, 256], drawn uniformly.
  solarize_threshold: tuple[float, float] = fields.field(
    (0.0, 256.0), ("two numbers in [0, 256], in order", _is_level_range)
  )
  # Of equalizing the histogram of each channel.
  equalize_probability: float = fields.field(0.0, fields.PROBABILITY)
  # Moves the crop by up to so many pixels each way; its borders are mirrored.
  # With scale and aspect_ratio (1, 1) this is the "weak" view of FixMatch.
  shift_pixels: int = fields.field(0, fields.between(0, 2**14))
  # A policy of RandAugment, by name, after all of the above; "": none.
  rand_augment: str = fields.field(
    "", ('"" or ' + _POLICY[0], lambda x: not x or _POLICY[1](x))
  )
  # Side in pixels of a gray square that is painted over last; 0: none.
  cutout_size: int = fields.field(0, fields.SIDE_OR_0)


def _default_specs() -> dict[str, ViewSpec]:
  return {
    "large": ViewSpec(count=2, size=224, scale=(0.14, 1.0)),
    "small": ViewSpec(count=6, size=96, scale=(0.05, 0.14)),
  }


@dataclasses.dataclass(frozen=True)
class EvalView:
  """The crop of an image that is embedded without augmentation.

  Attributes:
    eval_resize: what its short side is resized to; 0: not resized.
    eval_size: side in pixels of the center square that is cut then.
    mean: per channel, in units of the full range.
    std: per channel, in units of the full range.
  """

  eval_resize: int
  eval_size: int
  mean: tuple[float, ...]
  std: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Views(fields.Section):
  """Named crops, and what all of them share.

  A method says which crops it cuts from the unlabelled images. Labelled images
  are cut by the spec "support" if there is one, else by "large" or "weak", else
  by the first by name.
  """

  # Subtracted from each channel, in units of the full range.
  mean: tuple[float, ...] = fields.field(
    (0.485, 0.456, 0.406), ("one number per channel", lambda x: len(x) > 0)
  )
  # Divides each channel then, in the same units.
  std: tuple[float, ...] = fields.field((0.229, 0.224, 0.225), fields.POSITIVES)
  # In evaluation the short side is resized to this (0: not resized; only where
  # images are in memory) ...
  eval_resize: int = fields.field(256, fields.SIDE_OR_0)
  # ... and the center square of this side is cut; 0: the size of the spec
  # "large" or "weak", or of the first by name where there are none.
  eval_size: int = fields.field(0, fields.SIDE_OR_0)
  # Where crops of training images on disk are cut and resized: "host" sends
  # the crops to the devices, "device" the images.
  crop_on: str = fields.field("device", fields.one_of("device", "host"))
  # Views of an image by each spec that a frozen trunk (model.trunk) encodes.
  cached: int = fields.field(4, fields.between(1, 1000))
  # The same of a labelled image as a support; steps draw from these views.
  cached_support: int = fields.field(16, fields.between(1, 1000))
  # By name, beside the other fields of the section: views.large.size. Left
  # out of the hash, as a mapping cannot be hashed.
  specs: Mapping[str, ViewSpec] = dataclasses.field(
    default_factory=_default_specs, hash=False, metadata=fields.INLINE
  )

  def __post_init__(self) -> None:
    """Sorts specs by name: no order of fields may matter."""
    super().__post_init__()
    specs = {name: self.specs[name] for name in sorted(self.specs)}
    object.__setattr__(self, "specs", specs)

  @property
  def crops(self) -> dict[str, ViewSpec]:
    """Specs of unlabelled images with a count above 0, by name."""
    return {
      name: spec
      for name, spec in self.specs.items()
      if spec.count and name != _SUPPORT
    }

  @property
  def support(self) -> ViewSpec:
    """The spec that labelled images are cut by."""
    return self.specs[support_name(self.specs)]

  @property
  def evaluation(self) -> EvalView:
    """The crop that images are embedded with."""
    _, size = self.evaluation_size
    return EvalView(self.eval_resize, size, self.mean, self.std)

  @property
  def evaluation_size(self) -> tuple[str, int]:
    """Side of the crop that images are embedded with, and the field's name."""
    if self.eval_size:
      return "views.eval_size", self.eval_size
    name = _main_name(self.specs)
    return f"views.{name}.size", self.specs[name].size

  def check(self) -> None:
    """Refuses sizes and numbers of channels that contradict each other."""
    if not self.specs:
      raise errors.InputError(
        "views has no crops: add some, such as views.large."
      )
    large, small = self.crops.get("large"), self.crops.get("small")
    if large and small and small.size > large.size:
      raise errors.InputError(
        f"views.small.count is {small.count} and views.small.size is "
        f"{small.size}, but large crops have {large.size} pixels "
        "(views.large.size): make small ones no larger."
      )
    for name, spec in self.specs.items():
      if spec.shift_pixels >= spec.size:
        raise errors.InputError(
          f"views.{name}.shift_pixels is {spec.shift_pixels} but views.{name}"
          f".size is {spec.size}: a crop is moved by less than its side."
        )
    if len(self.mean) != len(self.std):
      raise errors.InputError(
        f"views.mean has {len(self.mean)} values and views.std "
        f"{len(self.std)}: give one of each per channel."
      )


def support_name(specs: Mapping[str, Any]) -> str:
  """Name of the spec that labelled images are cut by."""
  return _SUPPORT if _SUPPORT in specs else _main_name(specs)


def _main_name(specs: Mapping[str, Any]) -> str:
  return next((name for name in _MAIN if name in specs), min(specs))


# What fields were called before specs had names; this table does not change.
FLAT_NAMES: Mapping[str, tuple[str, str]] = {
  "num_large": ("large", "count"),
  "large_size": ("large", "size"),
  "large_scale": ("large", "scale"),
  "num_small": ("small", "count"),
  "small_size": ("small", "size"),
  "small_scale": ("small", "scale"),
}
# Fields that all specs had in common.
SHARED_NAMES = (
  "aspect_ratio",
  "flip_probability",
  "rotation_degrees",
  "jitter_strength",
  "jitter_probability",
  "grey_probability",
  "blur_probability",
  "blur_radius",
  "solarize_probability",
  "equalize_probability",
)


# Spec and field of every flat name, in a recipe with large and small crops.
_PLACES = {key: [place] for key, place in FLAT_NAMES.items()} | {
  key: [("large", key), ("small", key)] for key in SHARED_NAMES
}


def upgrade(recipe: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a recipe, {dotted name: value}, with specs for its flat names."""
  new: dict[str, Any] = {}
  for path, value in recipe.items():
    section, _, key = path.partition(".")
    places = _PLACES.get(key, []) if section == "views" else []
    new |= {f"views.{name}.{field}": value for name, field in places}
    if not places:
      new[path] = value
  if new.keys() != recipe.keys():
    # Both specs of before are there, whatever is known of them.
    for name, spec in _default_specs().items():
      new.setdefault(f"views.{name}.count", spec.count)
  return new


def _names(section: ml_collections.ConfigDict) -> list[str]:
  values = {key: section[key] for key in section}
  return sorted(k for k, v in values.items() if hasattr(v, "to_dict"))


def build(section: Any) -> Views:
  """Makes the typed section of one in a recipe, a mapping or a ConfigDict.

  Raises:
    UnknownFieldError: naming the field and those that there are.
  """
  return fields.build(Views, section, "views")


def build_from_fields(**section: Any) -> Views:
  """Makes the typed section of some of its fields, also of flat names."""
  values = ViewsDict(fields.as_dict(Views()))
  values.update(section)
  return build(values)


class ViewsDict(ml_collections.ConfigDict):
  """Section `views` of a recipe that still answers to flat names.

  Setting or reading `large_size` is setting or reading `large.size`; a shared
  name such as `flip_probability` is set in all specs.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    object.__setattr__(self, "flat_names_used", set())
    super().__init__(*args, **kwargs)

  def __getitem__(self, key: str) -> Any:
    places = self._places(key)
    if not places:
      return super().__getitem__(key)
    name, field = places[0]
    return super().__getitem__(name)[field]

  def __setitem__(self, key: str, value: Any) -> None:
    places = self._places(key)
    if not places:
      super().__setitem__(key, value)
      return
    for name, field in places:
      super().__getitem__(name)[field] = value
    self.flat_names_used.add(key)

  def get_ref(self, key: str) -> Any:
    """Returns a reference to a field, also to one with a flat name."""
    places = self._places(key)
    if not places:
      return super().get_ref(key)
    name, field = places[0]
    return super().__getitem__(name).get_ref(field)

  def get_type(self, key: str) -> type:
    """Returns the type of a field, also of one with a flat name."""
    places = self._places(key)
    if not places:
      return super().get_type(key)
    name, field = places[0]
    return super().__getitem__(name).get_type(field)

  def _places(self, key: str) -> list[tuple[str, str]]:
    """Specs and fields that a flat name stands for; none: it is not one."""
    if key in SHARED_NAMES:
      return [(name, key) for name in _names(self)]
    return _PLACES.get(key, [])


def view_spec(**changes: Any) -> ml_collections.ConfigDict:
  """Returns a spec for a recipe: the defaults of `ViewSpec`, and changes.

  Examples:
    >>> config.views.strong = view_spec(size=32, scale=(0.5, 1.0))
  """
  return ml_collections.ConfigDict(dataclasses.asdict(ViewSpec(**changes)))


def notice(config: Any) -> str:
  """Returns a line about flat names that were set since the last such line.

  Args:
    config: a recipe, or what a flag has instead of one.
  """
  views = getattr(config, "views", None)
  used: set[str] = getattr(views, "flat_names_used", set())
  parts = [
    f"{old} is now {name}.{field}"
    for old, (name, field) in FLAT_NAMES.items()
    if old in used
  ]
  shared = [name for name in SHARED_NAMES if name in used]
  if shared:
    parts.append(f"set in every spec: {', '.join(shared)}")
  used.clear()
  return f"section views has named specs: {'; '.join(parts)}" if parts else ""
