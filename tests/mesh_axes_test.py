"""One module names the axes of the mesh."""

import ast
import pathlib

PACKAGE = pathlib.Path(__file__).parents[1] / "paws_jax"

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
  for path in sorted(PACKAGE.rglob("*.py")):
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
