"""Fields of a recipe: default, type, range and comment of each in one place.

A section is a frozen dataclass that extends `Section`; each of its fields has
a type, a default and, where not every value will do, a rule. A field may also
hold a section, or a mapping from names to sections; with the metadata INLINE
these stand among the other fields of their section.

Examples:
  >>> @dataclasses.dataclass(frozen=True)
  ... class Train(Section):
  ...   # Passes over the training set.
  ...   epochs: int = field(100, AT_LEAST_ONE)
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from paws_jax import errors

# What is allowed, in words, and whether a value is.
Rule = tuple[str, Callable[[Any], bool]]

POSITIVE: Rule = ("greater than 0", lambda x: x > 0)
NOT_NEGATIVE: Rule = ("at least 0", lambda x: x >= 0)
AT_LEAST_ONE: Rule = ("at least 1", lambda x: x >= 1)
PROBABILITY: Rule = ("in [0, 1]", lambda x: 0 <= x <= 1)
FRACTION: Rule = ("in [0, 1)", lambda x: 0 <= x < 1)
SEED: Rule = ("in [0, 2147483647]", lambda x: 0 <= x < 2**31)
SCALE: Rule = (
  "two area fractions, 0 < low <= high <= 1",
  lambda x: len(x) == 2 and 0 < x[0] <= x[1] <= 1,
)
RANGE: Rule = (
  "two numbers, 0 < low <= high",
  lambda x: len(x) == 2 and 0 < x[0] <= x[1],
)
POSITIVES: Rule = (
  "numbers greater than 0",
  lambda x: len(x) > 0 and all(v > 0 for v in x),
)

# Steps are counted, and numbers computed, in 32 bits.
LARGEST_INTEGER = 2**31 - 1
_LARGEST_NUMBER = 3.4e38

# Metadata of a mapping whose sections a recipe has among the section's fields.
INLINE: Mapping[str, Any] = {"inline": True}

_TYPES = {
  bool: "True or False",
  int: "an integer",
  float: "a number",
  str: "a string",
  tuple: "a tuple",
}


def one_of(*names: str) -> Rule:
  """Returns the rule of a field that takes one of several names."""
  return f"one of {', '.join(names)}", lambda x: x in names


def between(low: int, high: int) -> Rule:
  """Returns the rule of an integer with a smallest and a largest value."""
  return f"at least {low} and at most {high}", lambda x: low <= x <= high


# Divides similarities in 32 bits.
TEMPERATURE: Rule = ("in [1e-6, 1e6]", lambda x: 1e-6 <= x <= 1e6)
BATCH_SIZE = between(1, 2**20)
# The side of an image, in pixels; 0 where it may be left open.
SIDE = between(1, 2**14)
SIDE_OR_0 = between(0, 2**14)


def field(default: Any, rule: Rule | None = None) -> Any:
  """Declares a field of a section.

  Args:
    default: its value where a recipe says nothing else.
    rule: its range; None: every value of its type.
  """
  return dataclasses.field(default=default, metadata={"rule": rule})


def required(rule: Rule) -> Any:
  """Declares a field without a default."""
  return dataclasses.field(metadata={"rule": rule})


@dataclasses.dataclass(frozen=True)
class Section:
  """A section of a recipe; hashable, so that it can be a static argument."""

  def __post_init__(self) -> None:
    """Gives each value the type of its field where the two mean the same."""
    for name, hint in types(type(self)).items():
      value = getattr(self, name)
      if hint is float and type(value) is int:
        object.__setattr__(self, name, float(value))
      elif isinstance(value, list):
        # JSON has lists only, which are not hashable.
        object.__setattr__(self, name, tuple(value))

  def check(self) -> None:
    """Checks fields of the section against each other.

    Raises:
      InputError: naming the fields, their values, and what to change.
    """


def defaults(kind: type[Section]) -> dict[str, Any]:
  """Returns the default of each field of a section, in order."""
  return as_dict(kind())


def types(kind: type[Section]) -> dict[str, Any]:
  """Returns the type of each field of a section, in order."""
  # A class can be hashed, also where its values have a hash of their own.
  return _types(typing.cast(Any, kind))


@functools.cache
def _types(kind: type[Section]) -> dict[str, Any]:
  hints = typing.get_type_hints(kind)
  return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def build(
  kind: type[Section],
  values: Section | Mapping[str, Any],
  name: str,
  *,
  title: str | None = None,
) -> Any:
  """Makes a section of its values; those that are missing have their defaults.

  Args:
    kind: the section's dataclass.
    values: by the name of the field; or the section, which is returned.
    name: of the section, for messages; "" for the recipe itself.
    title: what messages call it; default "section NAME".

  Raises:
    UnknownFieldError: naming the field and those that there are.
  """
  if isinstance(values, kind):
    return values
  assert not isinstance(values, Section)
  hints, built = types(kind), {}
  for key, value in _gather_inline(kind, values).items():
    path = name if key == _inline_field(kind) else _join(name, key)
    if key not in hints:
      title = title or f"section {name}"
      raise errors.UnknownFieldError(unknown_field(kind, path, title))
    built[key] = _build_nested(hints[key], value, path)
  return kind(**built)


def as_dict(section: Section) -> dict[str, Any]:
  """Returns the values of a section as nested dictionaries, as a recipe has."""
  values: dict[str, Any] = {}
  inline = _inline_field(type(section))
  for part in dataclasses.fields(section):
    value = getattr(section, part.name)
    if isinstance(value, Section):
      value = as_dict(value)
    elif isinstance(value, Mapping):
      value = {key: as_dict(inner) for key, inner in value.items()}
    values |= value if part.name == inline else {part.name: value}
  return values


def _gather_inline(
  kind: type[Section], values: Mapping[str, Any]
) -> dict[str, Any]:
  """Moves sections among the fields to the mapping with INLINE.

  A section takes what it lacks from the default section of its name.
  """
  values, inline = dict(values.items()), _inline_field(kind)
  if not inline or inline in values:
    return values
  names = [
    key
    for key, value in values.items()
    if key not in types(kind) and hasattr(value, "items")
  ]
  if names:
    known = getattr(kind(), inline)
    values[inline] = {
      key: (as_dict(known[key]) if key in known else {})
      | dict(values.pop(key).items())
      for key in names
    }
  return values


def _inline_field(kind: type[Section]) -> str | None:
  """Name of the field with the metadata INLINE."""
  for part in dataclasses.fields(kind):
    if part.metadata.get("inline"):
      return part.name
  return None


def _join(name: str, key: str) -> str:
  return f"{name}.{key}" if name else key


def unknown_field(kind: type[Section], name: str, title: str) -> str:
  """Returns the message about a field that a section does not have."""
  known = ", ".join(key for key in types(kind) if key != _inline_field(kind))
  return f"{name} is no field of {title}; its fields are {known}."


def _build_nested(hint: Any, value: Any, name: str) -> Any:
  """Makes sections of mappings where the type of a field asks for them."""
  # A ConfigDict is no Mapping, but has its methods.
  if not hasattr(value, "items"):
    return value
  if _is_section(hint):
    return build(hint, value, name)
  arguments = typing.get_args(hint)
  if arguments and _is_section(arguments[-1]):
    return {
      key: build(arguments[-1], inner, f"{name}.{key}")
      for key, inner in value.items()
    }
  wanted = typing.get_origin(hint) or hint
  raise errors.InputError(
    f"{name} is an object with fields: it must be {_TYPES[wanted]}."
  )


def _is_section(hint: Any) -> bool:
  return isinstance(hint, type) and issubclass(hint, Section)


def check(section: Section, name: str, *, ranges: bool = True) -> None:
  """Checks each field of a section, and those that belong together.

  Args:
    section: its values.
    name: of the section, for messages; "" for the recipe itself.
    ranges: whether a value of the right type may still be a wrong one.

  Raises:
    InputError: naming the field, its value, and what it may be.
  """
  for key, value, hint, rule in _values(section):
    path = name if key == _inline_field(type(section)) else _join(name, key)
    if isinstance(value, Section):
      check(value, path, ranges=ranges)
    elif isinstance(value, Mapping) and typing.get_origin(hint) is Mapping:
      for inner_key, inner in value.items():
        check(inner, f"{path}.{inner_key}", ranges=ranges)
    else:
      _check_type(path, value, hint)
      if ranges:
        _check_range(path, value, hint, rule)
  if ranges:
    section.check()


def _values(section: Section) -> Iterator[tuple[str, Any, Any, Rule | None]]:
  hints = types(type(section))
  for part in dataclasses.fields(section):
    yield (
      part.name,
      getattr(section, part.name),
      hints[part.name],
      part.metadata.get("rule"),
    )


def _check_type(name: str, value: Any, hint: Any) -> None:
  """Checks the type of a value, and that its numbers are finite."""
  for number in value if isinstance(value, tuple) else (value,):
    if isinstance(number, float):
      _check_magnitude(name, number, value)
  wanted = typing.get_origin(hint) or hint
  if not _has_type(value, wanted):
    raise errors.InputError(
      f"{name} is {value!r}: it must be {_TYPES[wanted]}."
    )
  if wanted is tuple:
    item = typing.get_args(hint)[0]
    if not all(_has_type(number, item) for number in value):
      raise errors.InputError(
        f"{name} is {value!r}: each must be {_TYPES[item]}."
      )


def _check_range(name: str, value: Any, hint: Any, rule: Rule | None) -> None:
  """Checks the range of a value of the right type."""
  if rule is not None and not rule[1](value):
    raise errors.InputError(f"{name} is {value!r}: it must be {rule[0]}.")
  if hint is int and abs(value) > LARGEST_INTEGER:
    raise errors.InputError(
      f"{name} is {value}: it must be at most {LARGEST_INTEGER}."
    )


def _check_magnitude(name: str, number: float, value: Any) -> None:
  """Refuses a number that has no value in 32 bits."""
  if not math.isfinite(number):
    raise errors.InputError(f"{name} is {value}: it must be finite.")
  if abs(number) > _LARGEST_NUMBER:
    raise errors.InputError(
      f"{name} is {value}: it must be at most {_LARGEST_NUMBER:g}."
    )


def _has_type(value: Any, wanted: type) -> bool:
  if wanted is float:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
  if wanted is int:
    return isinstance(value, int) and not isinstance(value, bool)
  return isinstance(value, wanted)
