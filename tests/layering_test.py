"""Imports run one way: a package imports only from those below it."""

import ast
import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "paws_jax"

# Bottom to top: a package imports only from the groups below its own. Packages
# of one group do not import each other.
ORDER = (
  ("_moved", "errors", "text", "json_text"),
  ("packages",),
  ("tf_runtime",),
  ("config",),
  ("parallel",),
  ("losses", "models", "augment", "optim"),
  ("distributed",),
  ("runs",),
  ("loggers",),
  ("data",),
  ("methods",),
  ("evaluation",),
  ("classifier",),
  ("weights",),
  ("monitoring",),
  ("plots",),
  ("training",),
  ("finetune", "predict", "report", "export", "plan"),
  ("doctor", "interchange"),
  ("tasks",),
  ("estimator",),
  ("cli",),
  ("main", "__main__"),
)
_LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}


def _files():
  return sorted(PACKAGE.rglob("*.py"))


def _part(path):
  """First name below the package: "losses", "data", "models"."""
  first = path.relative_to(PACKAGE).parts[0]
  return first.removesuffix(".py")


def _typing_only(tree):
  """Nodes below `if TYPE_CHECKING:`, which are never run."""
  return {
    child
    for node in ast.walk(tree)
    if isinstance(node, ast.If)
    and ast.unparse(node.test).endswith("TYPE_CHECKING")
    for statement in node.body
    for child in ast.walk(statement)
  }


def imports(path):
  """Absolute names of all modules (or their members) a file imports."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  skipped = _typing_only(tree)
  for node in ast.walk(tree):
    if node in skipped:
      continue
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{path}: relative import"
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imported_parts(path):
  names = [name.split(".") for name in imports(path)]
  return {name[1] for name in names if name[0] == "paws_jax" and name[1:]}


def _above(path):
  """What a file imports that is not below its own package."""
  mine = _part(path)
  return {
    part
    for part in _imported_parts(path) - {mine}
    if _LEVEL.get(part, len(ORDER)) >= _LEVEL[mine]
  }


def test_every_package_has_its_place():
  parts = {_part(path) for path in _files()} - {"__init__"}
  assert parts <= set(_LEVEL)
  # The reader of imports works: the train step uses the data.
  assert "data" in _imported_parts(PACKAGE / "training" / "step.py")


@pytest.mark.parametrize(
  "path", _files(), ids=lambda path: str(path.relative_to(PACKAGE))
)
def test_imports_go_down(path):
  if _part(path) != "__init__":
    assert not _above(path)


def test_an_import_upwards_would_be_found(tmp_path, monkeypatch):
  monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
  path = tmp_path / "losses" / "new.py"
  path.parent.mkdir()
  path.write_text(
    "from paws_jax.training import step\n"
    "from paws_jax import models\n"
    "from paws_jax import config\n"
  )
  assert _above(path) == {"training", "models"}


def test_nothing_imports_main():
  for path in _files():
    assert "main" not in _imported_parts(path), path


def test_there_is_no_drawer_for_everything():
  names = {path.stem for path in _files()}
  assert not names & {"utils", "util", "helpers", "common", "misc"}
