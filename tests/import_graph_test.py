"""No module imports itself through others, nor inside a function."""

import graphlib
import pathlib

import pytest

from tests import layering_test

ROOT = pathlib.Path(__file__).parent.parent


def _name(path):
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _module(name, modules):
  """The module of which a name is, or is a member."""
  return name if name in modules else name.rpartition(".")[0]


def _graph(package):
  modules = {_name(path): path for path in package.rglob("*.py")}
  return {
    name: {_module(n, modules) for n in layering_test.imports(path)}
    & modules.keys()
    for name, path in modules.items()
  }


def test_imports_form_no_circle():
  graph = _graph(ROOT / "paws_jax")
  assert "paws_jax.losses" in graph["paws_jax.classifier.vote"]
  graphlib.TopologicalSorter(graph).prepare()


def test_a_circle_would_be_found(tmp_path, monkeypatch):
  monkeypatch.setitem(globals(), "ROOT", tmp_path)
  (tmp_path / "a.py").write_text("def f():\n  import b\n")
  (tmp_path / "b.py").write_text("from a import f\n")
  with pytest.raises(graphlib.CycleError):
    graphlib.TopologicalSorter(_graph(tmp_path)).prepare()
