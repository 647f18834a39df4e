"""What the pages name exists: modules, files, fields, flags, other pages."""

import functools
import importlib
import pathlib
import re

import pytest

from paws_jax import config as config_lib
from paws_jax.cli import commands as commands_lib
from paws_jax.cli import flags as flags_lib
from paws_jax.config import methods
from tests import layering_test

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "paws_jax"
# The change log tells of what was; it is not held to what is.
PAGES = sorted(
  path
  for pattern in (
    "*.md",
    "docs/*.md",
    "*/README.md",
    "benchmarks/*.md",
    "tests/golden/*.md",
    "paws_jax/**/*.md",
  )
  for path in ROOT.glob(pattern)
  if path.name != "CHANGELOG.md"
)
NOTEBOOKS = sorted(ROOT.glob("colabs/*.ipynb"))
# Where a path in a page may start, beside the page's own directory.
_STARTS = (
  ROOT,
  PACKAGE,
  ROOT / "configs",
  ROOT / "benchmarks",
  ROOT / "tests",
  PACKAGE / "config",
)
_DIRECTORIES = "benchmarks|colabs|configs|docs|launch|paws_jax|tests"
# Names that a page makes up: NAME, PACKAGE, MODULE.
_PLACEHOLDER = re.compile(r"(?<![A-Za-z])[A-Z]{3,}(?![A-Za-z]|\.md)|[*]")
# Former names of fields, which a page tells of.
_FORMER_FIELDS = {
  "recipes.md": {f"views.{name}" for name in ("large_size", "num_small")}
  | {"views.flip_probability", "views.strong"},
}


def _text(path):
  return path.read_text(encoding="utf-8")


def _made_by(text):
  """Files that a page has its reader write, and their modules."""
  files = set(re.findall(r"<!-- file: (\S+) -->", text))
  return files | {name.removesuffix(".py").replace("/", ".") for name in files}


def _id(path):
  return str(path.relative_to(ROOT))


def missing_paths(page, text):
  """Paths to Python files, and paths below the top, that do not exist."""
  made = _made_by(text)
  found = re.findall(r"(?<![\w./-])[\w./]*\w\.py\b", text)
  found += re.findall(rf"(?<![\w./-])(?:{_DIRECTORIES})/[\w./*-]*", text)
  names = {name.rstrip(".").removeprefix("../") for name in found}
  return {
    name
    for name in names - made
    if not _PLACEHOLDER.search(name)
    and not any((start / name).exists() for start in (*_STARTS, page.parent))
  }


def missing_names(text):
  """Dotted names of the package that cannot be imported."""
  made = _made_by(text)
  names = set(re.findall(r"\bpaws_jax(?:\.[A-Za-z_]\w*)+", text))
  names |= {
    f"{module}.{name}"
    for module, name in re.findall(
      r"^from (paws_jax[\w.]*) import (\w+)", text, re.MULTILINE
    )
  }
  return {
    name
    for name in names
    if not any(name == new or name.startswith(f"{new}.") for new in made)
    and not _exists(name)
  }


def _exists(name):
  parts = name.split(".")
  path, depth = PACKAGE, 1
  while depth < len(parts) and (path / parts[depth]).is_dir():
    path, depth = path / parts[depth], depth + 1
  if depth < len(parts) and (path / f"{parts[depth]}.py").is_file():
    depth += 1
  if depth == len(parts):
    return True
  found = importlib.import_module(".".join(parts[:depth]))
  for part in parts[depth:]:
    found = getattr(found, part, None)
  return found is not None


@functools.cache
def _fields():
  """Dotted names of all fields, those of every method among them."""
  names = set()
  for method in methods.METHODS:
    config = config_lib.base(method=method)
    names |= set(_flat(config.to_dict()))
  return names | {name.partition(".")[0] for name in names}


def _flat(values, prefix=""):
  for key, value in values.items():
    yield f"{prefix}{key}"
    if isinstance(value, dict):
      yield from _flat(value, f"{prefix}{key}.")


def unknown_fields(page, text):
  """Fields of a recipe that there are not."""
  sections = "|".join(name for name in _fields() if "." not in name)
  found = re.findall(r"(?:--)?\bconfig\.((?:\w+\.)*\w+)=", text)
  found += re.findall(rf"`((?:{sections})\.(?:\w+\.)*\w+)(?:=[^`]*)?`", text)
  suffixes = (".py", ".md", ".json", ".jsonl", ".csv", ".png", ".jax")
  return {
    name
    for name in found
    if name not in _fields()
    and name not in _FORMER_FIELDS.get(page.name, ())
    and not name.endswith(suffixes)
  }


def unknown_flags(text):
  """Flags and tasks in commands of the package that there are not."""
  joined = text.replace("\\\n", " ")
  commands = re.findall(r"(?:paws_jax\.main|^paws-jax) (.*)", joined, re.M)
  names = {
    name
    for command in commands
    for name in re.findall(r"(?<!\S)--(\w+)", command)
  }
  tasks = set(re.findall(r"(?:--task=|^paws-jax )(\w+)", text, re.M))
  known = set(flags_lib.flags.FLAGS) | {"help"}
  return {name for name in names if name not in known} | {
    task for task in tasks if task not in commands_lib.TASKS
  }


def dead_links(page, text):
  """Relative links to files that do not exist."""
  text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
  links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", text)
  return {
    link
    for link in links
    if "://" not in link and not (page.parent / link).exists()
  }


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_page_names_what_exists(page):
  text = _text(page)
  assert not missing_paths(page, text)
  assert not missing_names(text)
  assert not dead_links(page, text)


@pytest.mark.parametrize("page", PAGES, ids=_id)
def test_a_page_names_fields_and_flags_that_exist(page):
  text = _text(page)
  assert not unknown_fields(page, text)
  assert not unknown_flags(text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=_id)
def test_a_notebook_names_modules_that_exist(path):
  text = _text(path).replace('\\n"', '"')
  assert not missing_names(re.sub(r'^ *"', "", text, flags=re.MULTILINE))


def test_what_does_not_exist_is_found():
  page = ROOT / "docs" / "page.md"
  text = """`paws_jax/train.py`, `paws_jax/losses/paws.py`, `models/norm.py`,
`models/layers.py`, paws_jax.losses.sharpen, paws_jax.losses.blunt,
paws_jax.runs.nothing, `views.mean`, `views.meen`, `method.me_max=False`,
`method.detached_keys`, `--config.train.epoch=3`, `tests/nothing/`,
[a](index.md), [b](nothing.md), `paws_jax/config/methods/NAME.py`

```
python -m paws_jax.main --workdri=x --task=fly \\
  --machines=h100:8
from paws_jax.runs import signals
from paws_jax.runs import terminal
```
"""
  assert missing_paths(page, text) == {
    "paws_jax/train.py",
    "models/norm.py",
    "tests/nothing/",
  }
  assert missing_names(text) == {
    "paws_jax.losses.blunt",
    "paws_jax.runs.nothing",
    "paws_jax.runs.terminal",
  }
  assert unknown_fields(page, text) == {"views.meen", "train.epoch"}
  assert unknown_flags(text) == {"workdri", "machines", "fly"}
  assert dead_links(page, text) == {"nothing.md"}


def test_the_index_lists_every_page():
  index = _text(ROOT / "docs" / "index.md")
  row = r"^\| \[[^\]]+\]\((\w+\.md)\) \| \S"
  listed = re.findall(row, index, re.MULTILINE)
  pages = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
  assert sorted(listed) == sorted(pages)


def test_the_layout_is_that_of_the_package():
  table, _, _ = _text(ROOT / "docs" / "layout.md").partition("\nHow ")
  rows = re.findall(r"^\| (`.*?) \| ", table, re.MULTILINE)
  order = tuple(frozenset(re.findall(r"`(\w+)`", row)) for row in rows)
  assert order == tuple(map(frozenset, layering_test.ORDER))
