"""Files and functions of the package are short enough to be read at once."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
MOST_LINES = 350
MOST_LINES_OF_A_FUNCTION = 60


def _modules():
  return sorted((ROOT / "paws_jax").rglob("*.py"))


def _long_functions(text):
  """{name: lines} of the functions that are too long."""
  lengths = {
    node.name: node.end_lineno - node.lineno + 1
    for node in ast.walk(ast.parse(text))
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
  }
  return {
    name: length
    for name, length in lengths.items()
    if length > MOST_LINES_OF_A_FUNCTION
  }


@pytest.mark.parametrize(
  "path", _modules(), ids=lambda path: str(path.relative_to(ROOT))
)
def test_files_and_functions_are_short(path):
  text = path.read_text()
  assert len(text.splitlines()) <= MOST_LINES
  assert not _long_functions(text)


def test_a_long_function_would_be_found():
  body = "  x = 1\n" * MOST_LINES_OF_A_FUNCTION
  assert _long_functions(f"def f():\n{body}") == {"f": 61}
  assert not _long_functions(f"def f():\n{body[8:]}")
