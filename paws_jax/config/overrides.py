"""Fields of a recipe that a program sets by name.

A name has dots, "train.minutes", or two underscores in their place as the
parameters of scikit-learn, "train__minutes"; a section is a mapping of its
fields.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import ml_collections

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import methods
from paws_jax.config import recipe
from paws_jax.config import views

# Fields of which one that is set takes the place of the other.
LENGTHS = ("epochs", "minutes")
_METHOD = "method"


def flatten(given: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the value of each field by its name with dots.

  Args:
    given: fields and sections, by either kind of name.

  Raises:
    UnknownFieldError: no recipe has such a field; names the nearest ones.
    InputError: a field that is given twice.
  """
  values: dict[str, Any] = {}
  for name, value in _flat(given):
    _check_known(name)
    if name in values:
      raise errors.InputError(f"{name} is given twice: leave one of them out.")
    values[name] = value
  return values


def _flat(
  given: Mapping[str, Any], start: str = ""
) -> Iterator[tuple[str, Any]]:
  for key, value in given.items():
    name = start + key.replace("__", ".")
    if hasattr(value, "items"):
      yield from _flat(value, f"{name}.")
    else:
      yield name, value


@functools.cache
def _known() -> dict[str, None]:
  """Names of the fields of all recipes; a view may have any name."""
  found: dict[str, None] = {}
  for method in methods.METHODS:
    values = recipe.base(method).to_dict()
    found |= dict.fromkeys(name for name, _ in _flat(values))
  return found


def is_field(name: str) -> bool:
  """Whether a recipe may have a field of this name, with dots."""
  section, _, rest = name.partition(".")
  view, _, field = rest.partition(".")
  return name in _known() or (
    section == "views" and view != "" and field in fields.types(views.ViewSpec)
  )


def _check_known(name: str) -> None:
  if is_field(name):
    return
  known = _known()
  inside = [other for other in known if name and other.startswith(f"{name}.")]
  if inside:
    one = f"{name}.name" if f"{name}.name" in known else inside[0]
    raise errors.UnknownFieldError(
      f"{name} is a section of a recipe: give its fields, such as {one}."
    )
  last = name.rpartition(".")[2]
  same = [other for other in known if other.rpartition(".")[2] == last]
  nearest = [
    *difflib.get_close_matches(name, known, n=3, cutoff=0.75),
    *difflib.get_close_matches(name, same, n=4, cutoff=0),
  ]
  choice = " or ".join(dict.fromkeys(nearest))
  if not choice:
    sections = dict.fromkeys(other.partition(".")[0] for other in known)
    choice = f"a field of {', '.join(sections)}"
  raise errors.UnknownFieldError(
    f"{name} is no field of a recipe: did you mean {choice}?"
  )


def apply(config: ml_collections.ConfigDict, values: Mapping[str, Any]) -> None:
  """Sets fields of a recipe; `resolve` checks their values.

  Section `method` becomes that of `method.name`; of train.epochs and
  train.minutes the one that is not given becomes 0.

  Args:
    config: the recipe.
    values: result of `flatten`.

  Raises:
    UnknownFieldError: a field that the method does not have.
  """
  method = values.get(f"{_METHOD}.name")
  with config.unlocked(), config.ignore_type():
    if method is not None:
      config.method = recipe.method_section(method, config.method)
    for name, value in values.items():
      section, _, field = name.rpartition(".")
      if section == _METHOD and field not in list(config.method):
        unknown = methods.unknown_field(config.method.name, field)
        raise errors.UnknownFieldError(unknown)
      _section(config, section)[field] = plain(value)
    for name, other in (LENGTHS, LENGTHS[::-1]):
      if values.get(f"train.{name}") and f"train.{other}" not in values:
        config.train[other] = 0


def plain(value: Any) -> Any:
  """Returns a number or array of NumPy, as grids hold them, as Python's."""
  return value.tolist() if hasattr(value, "dtype") else value


def _section(
  config: ml_collections.ConfigDict, name: str
) -> ml_collections.ConfigDict:
  """Finds a section; makes a view that the recipe does not have."""
  node = config
  for part in name.split(".") if name else ():
    if part not in node:
      node[part] = views.view_spec()
    node = node[part]
  return node
