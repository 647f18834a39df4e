"""The pages of the site: which there are, and their links.

The address of a page is its path in the repository, without "docs/".
"""

from __future__ import annotations

import pathlib
import posixpath
import re

import api
import notebooks
import tables

# Code, and links with their text.
_CODE = re.compile(r"(^ *```.*?^ *```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_ROW = re.compile(r"^\| \[(.*?)\]\((.*?)\) \|", re.MULTILINE)


def generated(root: pathlib.Path) -> dict[str, str]:
  """Text of the pages that are made of the code, by address."""
  made = {"tasks.md": tables.tasks_page(), "fields.md": tables.fields_page()}
  return made | {
    f"api/{package}.md": api.page(root, package)
    for package in api.packages(root)
  }


def sources(root: pathlib.Path) -> dict[str, str]:
  """File in the repository of each other page, by address.

  They are those that docs/index.md lists.
  """
  links = ["index.md", *(link for _, link in _ROW.findall(_index(root)))]
  paths = [posixpath.normpath(f"docs/{link}") for link in links]
  return {_address(path): path for path in paths}


def navigation(root: pathlib.Path) -> list[dict]:
  """The tables of docs/index.md, and the reference."""
  nav = [{"Home": "index.md"}]
  for section in re.split(r"^## ", _index(root), flags=re.MULTILINE)[1:]:
    title, _, body = section.partition("\n")
    rows = [
      {name: _address(posixpath.normpath(f"docs/{link}"))}
      for name, link in _ROW.findall(body)
    ]
    nav.append({title: rows})
  reference = [
    {"Tasks and flags": "tasks.md"},
    {"Fields of a recipe": "fields.md"},
    {"Python API": [f"api/{package}.md" for package in api.packages(root)]},
  ]
  nav.insert(-1, {"Reference": reference})
  return nav


def read(path: pathlib.Path) -> str:
  """Text of a page or notebook."""
  text = path.read_text(encoding="utf-8")
  return notebooks.to_markdown(text) if path.suffix == ".ipynb" else text


def with_links(
  text: str, uri: str, *, root: pathlib.Path, repository: str
) -> str:
  """A page with addresses in the site for paths in the repository.

  A file that is no page is linked in the repository. A link that is named like
  its file gets the title of the page.
  """
  place = sources(root).get(uri)
  if place is None:
    return text

  def new_link(match: re.Match[str]) -> str:
    image, name, target = match.groups()
    path, mark, anchor = target.partition("#")
    if "://" in target or not path:
      return match[0]
    path = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
    # The front page of the repository is not part of the site.
    path = "docs/index.md" if path == "README.md" else path
    if image:
      address = posixpath.relpath(_address(path), posixpath.dirname(uri) or ".")
      return f"![{name}]({address})"
    if _address(path) in sources(root):
      if name.endswith((".md", ".ipynb")):
        name = re.search(r"^# (.*)", read(root / path), re.MULTILINE)[1]
      start = posixpath.dirname(uri) or "."
      address = posixpath.relpath(_address(path), start)
      return f"[{name}]({address}{mark}{anchor})"
    if (root / path).exists() and not path.endswith(".md"):
      return f"[{name}]({repository}/blob/main/{path})"
    return match[0]

  parts = _CODE.split(text)
  parts[::2] = [_LINK.sub(new_link, part) for part in parts[::2]]
  text = "".join(parts)
  return f"{text}\n{tables.REFERENCE}" if uri == "index.md" else text


def _index(root: pathlib.Path) -> str:
  return (root / "docs" / "index.md").read_text(encoding="utf-8")


def _address(path: str) -> str:
  return path.removeprefix("docs/").replace(".ipynb", ".md")
