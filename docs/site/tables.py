"""Pages about fields, tasks and flags, made of the code that defines them."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
import typing
from collections.abc import Iterator

from absl import flags

from paws_jax import config as config_lib
from paws_jax.cli import commands
from paws_jax.cli import flags as flags_lib
from paws_jax.config import fields
from paws_jax.config import methods
from paws_jax.config import recipe_files

REFERENCE = """
## Reference

| page | what it answers |
|---|---|
| [Tasks and flags](tasks.md) | which tasks and flags the command line has |
| [Fields of a recipe](fields.md) | every field with default, type and range |
| [Python API](api/classifier.md) | classes and functions of the package |
"""
# Page of each task.
_TASK_PAGES = {
  "pretrain": "recipes.md",
  "doctor": "own_data.md#2-check-them",
  "devices": "pods.md",
  "plan": "pods.md",
}
_FIELD_HEAD = (
  "| field | value | default | meaning |",
  "|---|---|---|---|",
)


def fields_page() -> str:
  """Every field of a recipe: type, default, range and comment."""
  parts = [
    "# Fields of a recipe",
    "A recipe starts from these defaults (`config.base()`) and changes some; "
    "`--config.SECTION.FIELD=VALUE` changes one on the command line. "
    "[Recipes](recipes.md#changing-a-recipe) shows how. Texts starting with "
    "... continue that of the field above.",
    "\n".join([*_FIELD_HEAD, *_rows(config_lib.Recipe, ("seed",))]),
  ]
  for part in dataclasses.fields(config_lib.Recipe):
    kind = fields.types(config_lib.Recipe)[part.name]
    if part.name == "method":
      parts += _method_parts()
    elif isinstance(kind, type) and issubclass(kind, fields.Section):
      parts += _section_parts(kind, part.name)
  return "\n\n".join(parts) + "\n"


def _section_parts(
  kind: type[fields.Section], name: str, *, title: str = "", level: int = 2
) -> Iterator[str]:
  """Heading, docstring and table of a section; then those inside of it."""
  yield f"{'#' * level} {title or name}"
  yield inspect.getdoc(kind) or ""
  yield "\n".join([*_FIELD_HEAD, *_rows(kind)])
  hints = fields.types(kind)
  for part in dataclasses.fields(kind):
    if part.metadata.get("inline"):
      inner = typing.get_args(hints[part.name])[-1]
      names = ", ".join(
        f"`{name}.{spec}`" for spec in getattr(kind(), part.name)
      )
      yield f"There are {names} at first; a recipe may add others."
      yield from _section_parts(
        inner, f"{name}.NAME", title=f"{name}.NAME", level=level + 1
      )


def _method_parts() -> Iterator[str]:
  yield "## method"
  yield (
    "Each method has fields of its own; `method.name` chooses "
    "([Methods](methods.md))."
  )
  for name in methods.METHODS:
    kind = methods.config_class(name)
    yield from _section_parts(
      kind, "method", title=f'method, with name = "{name}"', level=3
    )


def _rows(
  kind: type[fields.Section], only: tuple[str, ...] = ()
) -> Iterator[str]:
  """One row for each field of a section."""
  found, hints = comments(kind), fields.types(kind)
  for part in dataclasses.fields(kind):
    if part.metadata.get("inline") or (only and part.name not in only):
      continue
    rule = part.metadata.get("rule")
    default = (
      "none" if part.default is dataclasses.MISSING else f"`{part.default!r}`"
    )
    # A name in quotes is a value.
    meaning = re.sub(
      r'(?<!`)"([^"`]*)"(?!`)', r'`"\1"`', found.get(part.name, "")
    )
    cells = (
      f"`{part.name}`",
      _type(hints[part.name]) + (f", {rule[0]}" if rule else ""),
      default,
      meaning,
    )
    escaped = [cell.replace("|", "\\|") for cell in cells]
    yield f"| {' | '.join(escaped)} |"


def _type(hint: object) -> str:
  if isinstance(hint, type):
    return f"`{hint.__name__}`"
  return f"`{hint}`"


def comments(kind: type) -> dict[str, str]:
  """The comment above each field of a dataclass, those it inherits included."""
  found = {}
  for base in reversed(kind.__mro__):
    if not dataclasses.is_dataclass(base) or base is fields.Section:
      continue
    source = textwrap.dedent(inspect.getsource(base))
    lines = source.splitlines()
    for node in ast.parse(source).body[0].body:
      if isinstance(node, ast.AnnAssign):
        above, start = [], node.lineno - 1
        while start and lines[start - 1].strip().startswith("# "):
          start -= 1
          above.insert(0, lines[start].strip().removeprefix("# "))
        if above:
          found[node.target.id] = " ".join(above)
  return found


def tasks_page() -> str:
  """Tasks with their flags, flags of all tasks, and recipes."""
  parts = [
    "# Tasks and flags",
    "`paws-jax TASK` is `python -m paws_jax.main --task=TASK`; without a task "
    "it trains. `paws-jax TASK --help` shows what stands here.",
  ]
  for name, task in commands.TASKS.items():
    page = _TASK_PAGES.get(name, f"{name}.md")
    parts += [
      f"## {name}",
      f"{task.summary} Explained in [{page.partition('.')[0]}]({page}).",
      f"```\npaws-jax {name} {task.example}\n```",
    ]
    if task.flags:
      parts.append(_flag_table(task.flags))
  read = {flag for task in commands.TASKS.values() for flag in task.flags}
  own = flags.FLAGS.flags_by_module_dict()[flags_lib.__name__]
  shared = [flag.name for flag in own if flag.name not in read]
  rows = [f"| `{k}` | {v} |" for k, v in recipe_files.summaries().items()]
  parts += [
    "## Flags of every task",
    _flag_table(shared),
    "## Recipes",
    "\n".join(["| `--config=` | what it trains |", "|---|---|", *rows]),
  ]
  return "\n\n".join(parts) + "\n"


def _flag_table(names: typing.Iterable[str]) -> str:
  rows = ["| flag | meaning |", "|---|---|"]
  for name in names:
    text = " ".join((flags.FLAGS[name].help or "").split())
    text = text.partition(".; repeat this option")[0]
    text = text.replace("|", "\\|").replace("<", "&lt;")
    rows.append(f"| `--{name}` | {text} |")
  return "\n".join(rows)
