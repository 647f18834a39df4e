"""TensorFlow is imported in one place, with its settings made before."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "paws_jax"

# Loads a data set of TFDS as far as its builder, and tells what TensorFlow and
# TFDS find in the environment when they are imported.
_WATCH = """
import os, sys

class Watch:
  def find_spec(self, name, *_):
    if name in ("tensorflow", "tensorflow_datasets"):
      print(name, os.environ.get("TF_ENABLE_ONEDNN_OPTS"))

sys.meta_path.insert(0, Watch())
from paws_jax.data.sources import arrays as sources
from paws_jax.data.sources import tfds_records
for load in (
  lambda: sources.load("tfds", directory="", tfds_name=""),
  lambda: tfds_records.load("", ""),
):
  try:
    load()
  except ValueError as error:
    assert "name no data set" in str(error)
"""


def _imports_at_run_time(tree):
  skipped = {
    child
    for node in ast.walk(tree)
    if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    for child in ast.walk(node)
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.Import) and node not in skipped:
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node not in skipped:
      yield node.module


def test_one_module_imports_it():
  importing = {
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob("*.py")
    for name in _imports_at_run_time(ast.parse(path.read_text("utf-8")))
    if name.split(".")[0] == "tensorflow"
  }
  assert importing == {"tf_runtime.py"}


@pytest.mark.slow
def test_its_settings_are_made_before_tfds_imports_it():
  result = subprocess.run(
    [sys.executable, "-c", _WATCH],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  # The last search is that of the import; others ask what is installed.
  found = dict(line.split() for line in lines)
  assert found == {"tensorflow": "0", "tensorflow_datasets": "0"}, lines
