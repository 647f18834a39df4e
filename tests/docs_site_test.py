"""The web site of the documentation: its generated pages, links and build."""

import ast
import json
import pathlib
import re
import subprocess
import sys

import pytest

from paws_jax import config as config_lib
from paws_jax.cli import commands
from paws_jax.cli import flags as flags_lib
from paws_jax.config import methods
from tests import layering_test

ROOT = pathlib.Path(__file__).parents[1]
SITE = ROOT / "docs" / "site"
URL = "https://example.org/paws_jax"

sys.path.insert(0, str(SITE))
try:
  import api
  import notebooks
  import pages
  import tables
finally:
  sys.path.remove(str(SITE))


def _rows(section):
  """Cells of the rows of a table of fields."""
  lines = re.findall(r"^\| `.*\|$", section, re.MULTILINE)
  return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines]


def _sections():
  """Text below each heading of the page of fields."""
  parts = re.split(r"^##+ ", tables.fields_page(), flags=re.MULTILINE)[1:]
  return {part.partition("\n")[0]: part for part in parts}


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_field_is_on_the_page_with_its_meaning(method):
  sections = _sections()
  config = config_lib.base(method=method).to_dict()
  config["views.NAME"] = config["views"].pop("large")
  del config["views"]["small"], config["seed"]
  for name, values in config.items():
    title = f'method, with name = "{method}"' if name == "method" else name
    rows = {row[0].strip("`"): row[1:] for row in _rows(sections[title])}
    assert rows.keys() == values.keys()
    for kind, default, meaning in rows.values():
      assert kind.startswith("`")
      assert default
      assert meaning.strip(" .")


def test_a_row_has_type_range_default_and_comment():
  rows = {row[0]: row[1:] for row in _rows(_sections()["optim"])}
  assert rows["`final_lr`"] == [
    "`float`, at least 0",
    "`0.064`",
    "Learning rate at the last step, to which a cosine falls.",
  ]


def test_every_task_and_flag_is_on_the_page():
  page = tables.tasks_page()
  headings = re.findall(r"^## (\w+)$", page, re.MULTILINE)
  assert set(headings) - {"Recipes"} == set(commands.TASKS)
  own = flags_lib.flags.FLAGS.flags_by_module_dict()[flags_lib.__name__]
  for flag in own:
    assert f"| `--{flag.name}` | " in page
  # A flag's choices are no HTML.
  assert "<" not in page
  pages_named = set(re.findall(r"\]\((\w+\.md)", page))
  assert all((ROOT / "docs" / name).is_file() for name in pages_named)


def test_a_reader_finds_the_parts_of_the_documentation():
  text = json.dumps(pages.navigation(ROOT))
  for page in ("install", "quickstart", "own_data", "recipes", "methods"):
    assert f'"{page}.md"' in text
  for page in ("tasks", "fields", "api/losses", "CHANGELOG", "index"):
    assert f'"{page}.md"' in text
  assert '"colabs/quickstart.md"' in text


def test_every_page_is_in_the_navigation_once():
  named = re.findall(r'"([\w/]+\.md)"', json.dumps(pages.navigation(ROOT)))
  there = [*pages.sources(ROOT), *pages.generated(ROOT)]
  assert sorted(named) == sorted(there)


@pytest.mark.parametrize("package", api.packages(ROOT))
def test_a_page_of_the_api_names_modules_that_exist(package):
  page = api.page(ROOT, package)
  names = re.findall(r"^::: (\S+)$", page, re.MULTILINE)
  assert names[0] == f"paws_jax.{package}"
  assert len(names) > 1
  for name in names:
    path = ROOT / name.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def test_every_package_has_a_page_or_is_internal():
  names = {name for group in layering_test.ORDER for name in group}
  there = {name for name in names if (ROOT / "paws_jax" / name).is_dir()}
  assert there == api.INTERNAL | set(api.packages(ROOT))
  assert {"classifier", "losses", "methods"} <= set(api.packages(ROOT))


def _docstrings(path):
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, kinds):
      yield ast.get_docstring(node) or ""


@pytest.mark.parametrize("package", api.packages(ROOT))
def test_examples_in_docstrings_are_marked_as_such(package):
  """Elsewhere ">>>" is a quotation in a quotation in a quotation."""
  for path in (ROOT / "paws_jax" / package).rglob("*.py"):
    for text in _docstrings(path):
      marked = re.sub(r"^Examples:\n((  .*)?\n?)+", "", text, flags=re.M)
      assert ">>>" not in marked, path


def test_short_names_of_a_package_are_those_of_its_modules():
  init = ast.parse((ROOT / "paws_jax/losses/__init__.py").read_text())
  names = api.short_names(init, ROOT, "paws_jax.losses")
  assert names["paws_loss"] == "paws_jax.losses.paws.paws_loss"
  # A type is neither function nor class.
  assert "AxisName" not in names


def test_links_of_a_page_are_those_of_the_site():
  text = """[report.md](report.md#limits), [a](../CHANGELOG.md),
[b](https://x.org), [c](../configs/quickstart.py), [d](nothing.md),
[e](../README.md), [i](site/api.py), `[f](../CHANGELOG.md)` ![g](quickstart.png)

```
[h](../CHANGELOG.md)
```
"""
  linked = pages.with_links(text, "predict.md", root=ROOT, repository=URL)
  assert linked == (
    text.replace("[report.md]", "[A report about a run]")
    .replace("[a](../CHANGELOG.md)", "[a](CHANGELOG.md)")
    .replace("../configs", f"{URL}/blob/main/configs")
    .replace("../README.md", "index.md")
    .replace("site/api.py", f"{URL}/blob/main/docs/site/api.py")
  )


@pytest.mark.parametrize(
  ("page", "text", "expected"),
  [
    ("benchmarks/RESULTS.md", "[a](plan.md)", "[a](plan.md)"),
    ("benchmarks/plan.md", "[a](../docs/pods.md)", "[a](../pods.md)"),
    ("CONTRIBUTING.md", "[a](docs/layout.md)", "[a](layout.md)"),
    ("colabs/README.md", "[a](quickstart.ipynb)", "[a](quickstart.md)"),
    ("benchmarks/RESULTS.md", "![](../docs/a.png)", "![](../a.png)"),
    # Made of the code, with links of the site.
    ("tasks.md", "[a](predict.md)", "[a](predict.md)"),
  ],
)
def test_links_from_any_place(page, text, expected):
  assert pages.with_links(text, page, root=ROOT, repository=URL) == expected


def test_a_notebook_becomes_a_page():
  cells = [
    {"cell_type": "markdown", "source": ["# A\n", "b"]},
    {
      "cell_type": "code",
      "source": ["c()"],
      "outputs": [
        {"output_type": "stream", "text": ["d\n"]},
        {"output_type": "display_data", "data": {"image/png": "ZQ=="}},
      ],
    },
  ]
  assert notebooks.to_markdown(json.dumps({"cells": cells})) == (
    "# A\nb\n\n```python\nc()\n```\n\n```text\nd\n```\n\n"
    '<img alt="Output of the cell" src="data:image/png;base64,ZQ==">\n'
  )


@pytest.mark.slow
def test_a_dead_link_or_anchor_fails_the_build(tmp_path):
  """`make docs` builds the pages as they are."""
  pytest.importorskip("mkdocs")
  pytest.importorskip("mkdocstrings")
  for path in ROOT.iterdir():
    if path.name not in ("docs", "build") and path.name[0] != ".":
      (tmp_path / path.name).symlink_to(path)
  for path in ROOT.glob("docs/**/*.*"):
    copy = tmp_path / path.relative_to(ROOT)
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(path.read_bytes())
  page = tmp_path / "docs" / "report.md"
  page.write_text(
    page.read_text() + "\n[a](nowhere.md) [b](predict.md#nothing)\n"
  )
  command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
  result = subprocess.run(
    [*command, "-f", str(tmp_path / "docs/site/mkdocs.yml")],
    capture_output=True,
    text=True,
  )
  assert result.returncode == 1
  warnings = re.findall("WARNING -.*", result.stderr)
  assert len(warnings) == 2, warnings
  assert "nowhere.md" in warnings[0]
  assert "#nothing" in warnings[1]
  assert "Aborted with 2 warnings" in result.stdout + result.stderr
