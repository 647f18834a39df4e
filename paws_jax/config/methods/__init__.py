"""Section `method` of a recipe: each method has fields of its own."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config.methods.base import Method as Method

# Import paths of the methods; the section of NAME is
# paws_jax.config.methods.NAME.Config. The first is the default.
METHODS = {
  "paws": "paws_jax.methods.paws.Paws",
  "ropaws": "paws_jax.methods.ropaws.Ropaws",
  "simclr": "paws_jax.methods.simclr.Simclr",
  "suncet": "paws_jax.methods.suncet.Suncet",
  "supervised": "paws_jax.methods.supervised.Supervised",
  "moco": "paws_jax.methods.moco.Moco",
  "byol": "paws_jax.methods.byol.Byol",
  "simsiam": "paws_jax.methods.simsiam.Simsiam",
  "swav": "paws_jax.methods.swav.Swav",
  "swav_suncet": "paws_jax.methods.swav_suncet.SwavSuncet",
  "msf": "paws_jax.methods.msf.Msf",
  "cmsf": "paws_jax.methods.cmsf.Cmsf",
  "fixmatch": "paws_jax.methods.fixmatch.Fixmatch",
  "uda": "paws_jax.methods.uda.Uda",
  "pseudo_label": "paws_jax.methods.pseudo_label.PseudoLabel",
  "strong_supervised": ("paws_jax.methods.strong_supervised.StrongSupervised"),
  "mpl": "paws_jax.methods.mpl.Mpl",
  "mean_teacher": "paws_jax.methods.mean_teacher.MeanTeacher",
}
DEFAULT = next(iter(METHODS))


class MethodDict(ml_collections.ConfigDict):
  """Section `method` of a recipe that knows the defaults of other methods.

  A recipe that has changed `name` may read a field of that method before the
  section is rebuilt for it. Fields that have been set are kept then, even to
  what was the default of the method before.
  """

  def __init__(self, *args: Any, **kwargs: Any):
    object.__setattr__(self, "fields_set", set())
    super().__init__(*args, **kwargs)
    self.fields_set.clear()

  def __setitem__(self, key: str, value: Any) -> None:
    super().__setitem__(key, value)
    self.fields_set.add(key)

  def __getitem__(self, key: str) -> Any:
    if key in self._fields:
      return super().__getitem__(key)
    for name in (self._fields.get("name"), *METHODS):
      if name in METHODS:
        defaults = fields.defaults(config_class(name))
        if key in defaults:
          return defaults[key]
    return super().__getitem__(key)


def config_class(name: str) -> type[Method]:
  """Returns the dataclass of a method's section.

  Raises:
    InputError: an unknown method.
  """
  if not isinstance(name, str) or name not in METHODS:
    raise errors.InputError(
      f"method.name is {name!r}; known are {', '.join(METHODS)}."
    )
  return importlib.import_module(f"{__name__}.{name}").Config


def default(name: str) -> Method:
  """Makes section `method` of a method's defaults.

  Raises:
    InputError: an unknown method.
  """
  return fields.build(config_class(name), {}, "method")


def build(values: Method | Mapping[str, Any]) -> Method:
  """Makes section `method` of its values, `name` among them.

  Raises:
    UnknownFieldError: a field that the method does not have.
    InputError: an unknown method.
  """
  if isinstance(values, Method):
    return values
  name = values["name"]
  return fields.build(
    config_class(name), values, "method", title=f"method {name}"
  )


def rebuild(
  values: Mapping[str, Any], name: str
) -> tuple[dict[str, Any], dict[str, Any]]:
  """Changes the values of section `method` to those of another method.

  Values that differ from the defaults they replaced are kept where the method
  has such a field.

  Args:
    values: of the section: the fields of a method, and any that were added.
    name: the method.

  Returns:
    The values of the method's fields, and values that it has no field for.

  Raises:
    UnknownFieldError: a field that no method has.
    InputError: an unknown method.
  """
  chosen = getattr(values, "fields_set", ())
  values, section = dict(values), fields.defaults(config_class(name))
  if name == values.get("name") and values.keys() == section.keys():
    return values, {}
  every = {other: fields.defaults(config_class(other)) for other in METHODS}
  # The method whose defaults were there at first.
  complete = [v for v in every.values() if v.keys() <= values.keys()]
  before = max(complete, key=len, default={})
  dropped: dict[str, Any] = {}
  for key, value in values.items():
    if not any(key in defaults for defaults in every.values()):
      raise errors.UnknownFieldError(unknown_field(name, key))
    changed = key in chosen or key not in before or value != before[key]
    if key != "name" and changed:
      (section if key in section else dropped)[key] = value
  return section, dropped


def unknown_field(name: str, field: str) -> str:
  """Returns the message about a field that a method does not have."""
  return fields.unknown_field(
    config_class(name), f"method.{field}", f"method {name}"
  )


def dropped_line(name: str, dropped: Mapping[str, Any]) -> str:
  """Returns the line about values that a change of the method drops."""
  values = ", ".join(f"method.{key} = {dropped[key]!r}" for key in dropped)
  return f"notice: method {name} does not read {values}, which is left out"
