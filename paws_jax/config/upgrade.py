"""Recipes as runs have stored them, brought to the fields of this version.

A stored recipe has the number of the version that its fields belong to. One
that was stored before there was a number is of version 0. What a version calls
a field is written down here and does not follow later changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import methods
from paws_jax.config import recipe as recipe_lib
from paws_jax.config import views

VERSION = 1
KEY = "version"
# Beside the sections: how the number of epochs was found, if by train.minutes.
LAID_OUT = "laid_out"

_Flat = dict[str, Any]

# Version 0 stored the fields of all methods for each of them. Those that the
# method of a run ignored are dropped.
_METHOD_FIELDS_0 = (
  "as_released",
  "detached_keys",
  "entropy_loss_weight",
  "health_metrics",
  "in_domain_power",
  "in_domain_temperature",
  "label_mass_ratio",
  "me_max",
  "name",
  "num_iterations",
  "prior",
  "prior_probs",
  "released_batch_size",
  "sharpen_temperature",
  "supervised_until",
  "supervised_until_epochs",
  "support_loss_weight",
  "temperature",
)


def read(stored: Mapping[str, Any]) -> recipe_lib.Recipe:
  """Makes a recipe of a stored one; fields that it lacks have their defaults.

  Args:
    stored: by section or by dotted name, with the number of its version.

  Raises:
    InputError: it is of a newer version, or a value is of another type.
    UnknownFieldError: a field that its version did not have, by name.
  """
  stored = {key: part for key, part in stored.items() if key != LAID_OUT}
  flat = flatten(stored)
  version = flat.pop(KEY, 0)
  if type(version) is not int or version < 0:
    raise errors.InputError(
      f"its version is {version!r}: it must be a whole number."
    )
  if version > VERSION:
    raise errors.InputError(
      f"its fields are those of version {version}, and this program knows "
      f"versions 0 to {VERSION}: use a newer one."
    )
  for upgrade in _UPGRADES[version:]:
    flat = upgrade(flat)
  values = _nested(flat)
  _check_sections(values)
  if "method" in values:
    values["method"] = methods.build(
      {"name": methods.DEFAULT} | values["method"]
    )
  recipe = fields.build(recipe_lib.Recipe, values, "", title="a recipe")
  # A version may have had other ranges, and tasks check those that are theirs.
  fields.check(recipe, "", ranges=False)
  return recipe


def _check_sections(values: Mapping[str, Any]) -> None:
  """Refuses a single value where a section has fields."""
  defaults = recipe_lib.Recipe()
  for name, value in values.items():
    section = getattr(defaults, name, None)
    if dataclasses.is_dataclass(section) and not isinstance(value, Mapping):
      raise errors.InputError(
        f"section {name} is {value!r}: it must be an object with fields."
      )


def write(recipe: recipe_lib.Recipe) -> dict[str, Any]:
  """Returns a recipe as it is stored: for JSON, with its version."""
  return {KEY: VERSION} | recipe.to_dict()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> _Flat:
  """Flattens nested sections into {dotted name: value}."""
  flat: _Flat = {}
  for name, value in tree.items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{name}.")
    else:
      flat[prefix + name] = value
  return flat


def _nested(flat: _Flat) -> dict[str, Any]:
  """Undoes `flatten`."""
  tree: dict[str, Any] = {}
  for name, value in flat.items():
    *sections, field = name.split(".")
    section = tree
    for part in sections:
      section = section.setdefault(part, {})
      if not isinstance(section, dict):
        raise errors.InputError(
          f"{name} is there, and {part} is a value: it must be an object with "
          "fields."
        )
    section[field] = value
  return tree


def _from_0(flat: _Flat) -> _Flat:
  """Gives each method, and each spec of a view, its own fields."""
  flat = views.upgrade(flat)
  kind = methods.config_class(flat.get("method.name", methods.DEFAULT))
  ignored = set(_METHOD_FIELDS_0).difference(fields.types(kind))
  for field in ignored:
    flat.pop(f"method.{field}", None)
  return flat


# The first upgrades version 0 to version 1.
_UPGRADES: tuple[Callable[[_Flat], _Flat], ...] = (_from_0,)
