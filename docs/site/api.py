"""Pages of the Python API."""

from __future__ import annotations

import ast
import pathlib

# Packages without a page: what tasks are made of.
INTERNAL = {
  *("cli", "data", "distributed", "doctor", "finetune", "monitoring"),
  *("parallel", "plan", "plots", "runs", "tasks", "training"),
}
# Modules of a package that has a page; of others all.
_MODULES = {
  "classifier": ("classifier", "predictions", "support_bank", "preprocessing"),
  "config": (
    *("recipe", "recipe_files", "fields", "data", "views", "support"),
    *("model", "methods"),
    *("methods.base", "optim", "train", "eval", "checkpoint", "finetune"),
    "log",
  ),
}


def packages(root: pathlib.Path) -> list[str]:
  """Names of the packages that have a page."""
  directories = (root / "paws_jax").glob("*/__init__.py")
  return sorted({path.parent.name for path in directories} - INTERNAL)


def page(root: pathlib.Path, package: str) -> str:
  """The page of a package: its docstring, its names, and its modules."""
  directory = root / "paws_jax" / package
  name = f"paws_jax.{package}"
  init = _parse(directory / "__init__.py")
  parts = [f"# {name}", _package(init, name)]
  names = short_names(init, root, name)
  if names:
    listed = ", ".join(f"[`{new}`][{full}]" for new, full in names.items())
    parts.append(f"Also as names of `{name}` itself: {listed}.")
  found = [path.stem for path in directory.glob("*.py")]
  public = sorted(stem for stem in found if stem[0] != "_")
  modules = _MODULES.get(package, public)
  parts += [f"::: {name}.{module}" for module in modules]
  return "\n\n".join(parts) + "\n"


def short_names(
  init: ast.Module, root: pathlib.Path, package: str
) -> dict[str, str]:
  """Functions and classes of the modules of a package that it has, too."""
  modules, found = {}, {}
  for node in init.body:
    if isinstance(node, ast.ImportFrom):
      for alias in node.names:
        new, full = alias.asname or alias.name, f"{node.module}.{alias.name}"
        if node.module == package:
          modules[new] = full
        elif node.module.startswith(f"{package}."):
          found[new] = full
    elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Attribute):
      module, _, member = ast.unparse(node.value).rpartition(".")
      if module in modules:
        found[ast.unparse(node.targets[0])] = f"{modules[module]}.{member}"
  return {new: full for new, full in found.items() if _is_defined(root, full)}


def _is_defined(root: pathlib.Path, name: str) -> bool:
  """Whether a name is that of a function or class."""
  module, _, member = name.rpartition(".")
  body = _parse(root / f"{module.replace('.', '/')}.py").body
  kinds = (ast.FunctionDef, ast.ClassDef)
  return any(isinstance(node, kinds) and node.name == member for node in body)


def _parse(path: pathlib.Path) -> ast.Module:
  return ast.parse(path.read_text(encoding="utf-8"))


def _package(init: ast.Module, name: str) -> str:
  """Docstring of a package, and what stands in its own file."""
  kinds = (ast.FunctionDef, ast.ClassDef)
  members = [node.name for node in init.body if isinstance(node, kinds)]
  public = [member for member in members if member[0] != "_"]
  return "\n".join(
    [
      f"::: {name}",
      "    options:",
      "      show_root_heading: false",
      f"      members: {public or 'false'}",
    ]
  )
