"""The recipes that ship with the package, found by name."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import pathlib
from collections.abc import Iterable
from typing import Any

import ml_collections

from paws_jax import errors

NO_VARIANTS = "this recipe has no variants: leave out the colon and the rest"
_PACKAGE = pathlib.Path(__file__).parents[1]


def directory() -> pathlib.Path:
  """The directory of the recipes: in the package, in a checkout beside it."""
  installed = _PACKAGE / "configs"
  return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names() -> list[str]:
  """Names of the recipes, sorted."""
  return sorted(
    path.stem for path in directory().glob("*.py") if path.stem[0] != "_"
  )


def locate(recipe: str, *, flag: str = "--config=") -> str:
  """Finds the file of a recipe.

  Args:
    recipe: a name such as "quickstart", or a path such as "./mine.py"; either
      may be followed by ":" and variants. "configs/quickstart.py" is also
      found where there is no such directory.
    flag: what messages write before the name of a recipe.

  Returns:
    The path of the file, followed by ":" and the variants if there are any.

  Raises:
    InputError: there is no such recipe; names the nearest ones.
  """
  file, colon, variants = recipe.partition(":")
  path = pathlib.Path(file)
  if file.isidentifier():
    path = directory() / f"{file}.py"
  elif not path.is_file() and path.parent == pathlib.Path("configs"):
    path = directory() / path.name
  if path.is_file():
    return f"{path}{colon}{variants}"
  raise errors.InputError(f"{flag}{recipe}: {_missing(file, flag)}")


def _missing(file: str, flag: str) -> str:
  if file.isidentifier() and pathlib.Path(file).is_file():
    return f"there is no such recipe; for the file of that name write ./{file}"
  nearest = difflib.get_close_matches(pathlib.Path(file).stem, names(), n=3)
  kind = "recipe" if file.isidentifier() else "file"
  if not nearest:
    return f"there is no such {kind}; --list shows the recipes"
  choice = " or ".join(f"{flag}{name}" for name in nearest)
  return f"there is no such {kind}; did you mean {choice}?"


def load(recipe: str, *, flag: str = "--config=") -> ml_collections.ConfigDict:
  """Runs the file of a recipe.

  Args:
    recipe: as of `locate`.
    flag: as of `locate`.

  Raises:
    InputError: there is no such recipe, or it has no such variant.
  """
  path, colon, variants = locate(recipe, flag=flag).partition(":")
  module = _run(path)
  if colon and not inspect.signature(module.get_config).parameters:
    raise errors.InputError(f"{flag}{recipe}: {NO_VARIANTS}")
  try:
    return module.get_config(*([variants] if colon else []))
  except ValueError as error:
    raise errors.InputError(f"{flag}{recipe}: {error}") from error


def beside(file: str, name: str, *variants: str) -> ml_collections.ConfigDict:
  """Returns the recipe of a file in the same directory, for recipes.

  Recipes are found by path, not on the import path, and so are those that they
  start from.

  Args:
    file: `__file__` of the recipe that asks.
    name: of the other, such as "imagenet".
    *variants: argument of its `get_config`, if it takes one.
  """
  path = pathlib.Path(file).with_name(f"{name}.py")
  return _run(str(path)).get_config(*variants)


def check_variant(file: str, variant: str, known: Iterable[str]) -> None:
  """Refuses a variant that a recipe does not have.

  Args:
    file: `__file__` of the recipe.
    variant: asked for.
    known: names of all that there are.

  Raises:
    InputError: naming them.
  """
  known = list(known)
  if variant not in known:
    raise errors.InputError(
      f"variant {variant!r} of {pathlib.Path(file).name}: known are "
      f"{', '.join(known)}."
    )


def _run(path: str) -> Any:
  """Runs a file of Python; returns its module."""
  spec = importlib.util.spec_from_file_location("recipe", path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def summaries() -> dict[str, str]:
  """First line of the docstring of each recipe, by name."""
  return {name: _summary(directory() / f"{name}.py") for name in names()}


def _summary(path: pathlib.Path) -> str:
  module = ast.parse(path.read_text(encoding="utf-8"))
  return (ast.get_docstring(module) or "").partition("\n")[0]
