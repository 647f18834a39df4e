"""Sections: built by name, nested ones too, and checked."""

import dataclasses
from collections.abc import Mapping

import pytest

from paws_jax import errors
from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Crop(fields.Section):
  size: int = fields.field(8, fields.AT_LEAST_ONE)
  scale: tuple[float, float] = fields.field((0.5, 1.0), fields.SCALE)

  def check(self):
    if self.size == 13:
      raise errors.InputError("13 brings bad luck")


@dataclasses.dataclass(frozen=True)
class Outer(fields.Section):
  rate: float = fields.field(1.0, fields.POSITIVE)
  first: Crop = dataclasses.field(default_factory=Crop)
  crops: Mapping[str, Crop] = dataclasses.field(
    default_factory=lambda: {"a": Crop()}
  )


def test_nested_sections_are_built():
  built = fields.build(
    Outer, {"first": {"size": 3}, "crops": {"b": {"scale": [0.1, 0.2]}}}, "out"
  )
  assert built.first == Crop(size=3)
  assert built.crops == {"b": Crop(scale=(0.1, 0.2))}
  assert fields.build(Outer, built, "out") is built


@pytest.mark.parametrize(
  ("values", "name"),
  [
    (
      {"sizes": 1},
      "out.sizes is no field of section out; .*rate, first, crops",
    ),
    (
      {"first": {"sizes": 1}},
      r"out\.first\.sizes is no field of section out.fi",
    ),
    (
      {"crops": {"b": {"x": 1}}},
      r"out\.crops\.b\.x is no field .* size, scale",
    ),
  ],
)
def test_unknown_fields_are_named_with_their_path(values, name):
  with pytest.raises(TypeError, match=name):
    fields.build(Outer, values, "out")


@pytest.mark.parametrize(
  ("values", "message"),
  [
    ({"rate": 0}, r"^out\.rate is 0\.0: it must be greater than 0\."),
    ({"first": {"size": 0}}, r"^out\.first\.size is 0: it must be at least 1"),
    ({"crops": {"b": {"size": 0}}}, r"^out\.crops\.b\.size is 0: it must"),
    ({"crops": {"b": {"size": 13}}}, "^13 brings bad luck"),
  ],
)
def test_every_section_is_checked(values, message):
  built = fields.build(Outer, values, "out")
  with pytest.raises(ValueError, match=message):
    fields.check(built, "out")


def test_defaults():
  assert fields.defaults(Crop) == {"size": 8, "scale": (0.5, 1.0)}


def test_sections_can_be_static_arguments():
  assert hash(Crop(scale=[0.5, 1.0])) == hash(Crop())
