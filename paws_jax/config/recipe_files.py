"""The recipes that ship with the package, found by name."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import inspect
import pathlib

import ml_collections

from paws_jax import errors

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
  spec = importlib.util.spec_from_file_location("recipe", path)
  assert spec is not None
  assert spec.loader is not None
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  if colon and not inspect.signature(module.get_config).parameters:
    raise errors.InputError(f"{flag}{recipe}: this recipe has no variants")
  try:
    return module.get_config(*([variants] if colon else []))
  except ValueError as error:
    raise errors.InputError(f"{flag}{recipe}: {error}") from error


def summaries() -> dict[str, str]:
  """First line of the docstring of each recipe, by name."""
  return {name: _summary(directory() / f"{name}.py") for name in names()}


def _summary(path: pathlib.Path) -> str:
  module = ast.parse(path.read_text(encoding="utf-8"))
  return (ast.get_docstring(module) or "").partition("\n")[0]
