"""Imports run one way, and the core needs neither TensorFlow nor clu."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "paws_jax"

# Bottom to top: a package imports only from the groups below its own. Packages
# of one group do not import each other.
ORDER = (
  ("_moved", "tf_runtime", "errors", "text"),
  ("config",),
  ("parallel",),
  ("losses", "models", "augment", "optim"),
  ("distributed",),
  ("runs",),
  ("data",),
  ("methods",),
  ("evaluation",),
  ("classifier",),
  ("weights",),
  ("monitoring",),
  ("plots",),
  ("training",),
  ("finetune", "predict", "report", "export", "plan"),
  ("doctor",),
  ("tasks",),
  ("cli",),
  ("main", "__main__"),
)
_LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
# What only loads with the host pipeline, or when it is asked for.
HEAVY = ("tensorflow", "tensorflow_datasets", "clu")
CORE = (
  "augment",
  "classifier.classifier",
  "config",
  "data.dataset",
  "data.memory_pipeline",
  "data.sources.arrays",
  "distributed.lifecycle",
  "evaluation.soft_nn",
  "losses",
  "methods",
  "models",
  "monitoring.monitor",
  "optim",
  "parallel.mesh",
  "runs.checkpoint",
  "runs.metrics",
  "tasks.evaluate",
  "tasks.export",
  "tasks.finetune",
  "tasks.predict",
  "tasks.pretrain",
  "tasks.report",
  "training.experiment",
  "training.step",
)


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


_TAKES_AXES = {
  "P",
  "PartitionSpec",
  "Mesh",
  "make_mesh",
  "all_gather",
  "all_to_all",
  "axis_index",
  "axis_size",
  "pcast",
  "pmax",
  "pmean",
  "pmin",
  "ppermute",
  "psum",
  "psum_scatter",
  "pvary",
  "shard_map",
}
_AXIS_KEYWORDS = {"axis_name", "axis_names", "group_axis_name"}


def _named_axes(path):
  """String literals that stand where a mesh axis is named."""
  tree = ast.parse(path.read_text(encoding="utf-8"))
  places = []
  for node in ast.walk(tree):
    if isinstance(node, ast.Call):
      name = getattr(node.func, "attr", getattr(node.func, "id", None))
      if name in _TAKES_AXES:
        places.append(node)
      places += [k.value for k in node.keywords if k.arg in _AXIS_KEYWORDS]
    elif isinstance(node, ast.arguments):
      named = [*node.posonlyargs, *node.args]
      defaults = zip(
        [*named[len(named) - len(node.defaults) :], *node.kwonlyargs],
        [*node.defaults, *node.kw_defaults],
        strict=True,
      )
      places += [d for a, d in defaults if d and a.arg in _AXIS_KEYWORDS]
    elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
      targets = node.targets if isinstance(node, ast.Assign) else [node.target]
      if any(ast.unparse(t).lower() in _AXIS_KEYWORDS for t in targets):
        places.append(node.value)
  return {
    child.value
    for place in places
    for child in ast.walk(place)
    if isinstance(child, ast.Constant)
    and isinstance(child.value, str)
    and child.value in ("data", "group")
  }


def test_one_module_names_mesh_axes():
  for path in _files():
    if path != PACKAGE / "parallel" / "mesh.py":
      assert not _named_axes(path), path
      text = path.read_text(encoding="utf-8")
      # A spec is built in one place, too.
      assert "import PartitionSpec" not in text, path
      assert "jax.P(" not in text, path


def test_axes_named_elsewhere_would_be_found(tmp_path):
  for line in (
    'jax.lax.psum(x, "data")',
    'f(x, axis_name=("group", "data"))',
    'def f(x, *, axis_name="data"): pass',
    'class A:\n  axis_name: str = "data"',
    'spec = P("data")',
  ):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert _named_axes(path), line
  path.write_text('sections["data"]')
  assert not _named_axes(path)


def _run_without(modules, code):
  """Runs code in a Python in which these modules cannot be imported."""
  blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in modules)
  return subprocess.run(
    [sys.executable, "-c", f"import sys\n{blocked}{code}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )


@pytest.mark.slow
def test_the_core_imports_without_tensorflow_and_clu():
  code = "".join(f"import paws_jax.{name}\n" for name in CORE)
  # Nor may an import start the devices: flags come first.
  code += (
    "from jax._src import xla_bridge\n"
    "assert not xla_bridge.backends_are_initialized()\n"
    "print('imported')\n"
  )
  result = _run_without(HEAVY, code)
  assert result.stdout == "imported\n", result.stderr


@pytest.mark.parametrize("module", ["paws_jax", "paws_jax.main"])
def test_help_needs_neither_jax_nor_tensorflow(module):
  result = _run_without(
    (*HEAVY, "jax", "flax", "orbax"),
    "import runpy\n"
    f"sys.argv = [{module!r}, '--help']\n"
    f"runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n",
  )
  # The flags of the command come first.
  assert result.stdout.lstrip().startswith("Semi-supervised"), result.stdout
  assert result.stdout.index("--config") < result.stdout.index("--helpfull")
  assert "--workdir" in result.stdout
  assert "Traceback" not in result.stderr


def test_recipes_need_no_jax():
  code = (
    "import importlib.util, pathlib\n"
    "for path in pathlib.Path('configs').glob('*.py'):\n"
    "  spec = importlib.util.spec_from_file_location(path.stem, path)\n"
    "  module = importlib.util.module_from_spec(spec)\n"
    "  spec.loader.exec_module(module)\n"
    "  print(module.get_config().seed)\n"
  )
  result = _run_without((*HEAVY, "jax"), code)
  assert result.returncode == 0, result.stderr
  assert result.stdout
