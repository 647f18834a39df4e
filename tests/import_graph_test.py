"""No module imports itself through others, nor inside a function."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def _name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path, modules):
  """Modules that a file imports, at its top or anywhere in it."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      for alias in node.names:
        name = f"{node.module}.{alias.name}"
        yield name if name in modules else node.module


def _graph(package):
  modules = {_name(path): path for path in package.rglob("*.py")}
  return {
    name: set(_imported(path, modules)) & modules.keys()
    for name, path in modules.items()
  }


def test_imports_form_no_circle():
  graph = _graph(ROOT / "paws_jax")
  assert "paws_jax.losses" in graph["paws_jax.classifier.vote"]
  graphlib.TopologicalSorter(graph).prepare()


def test_a_circle_would_be_found(tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), "ROOT", tmp_path)
  (tmp_path / "a.py").write_text("def f():\n  import b\n")
  (tmp_path / "b.py").write_text("import a\n")
  with pytest.raises(graphlib.CycleError):
    graphlib.TopologicalSorter(_graph(tmp_path)).prepare()
