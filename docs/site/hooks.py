"""Hooks of MkDocs: pages that no file holds, the navigation, and links."""

import pathlib
import sys

from mkdocs.structure.files import File

_HERE = pathlib.Path(__file__).parent
ROOT = _HERE.parents[1]
sys.path[:0] = [str(_HERE), str(ROOT)]

import pages  # noqa: E402


def on_config(config):
  """Fills in the navigation."""
  config.nav = pages.navigation(ROOT)
  return config


def on_files(files, config):
  """Adds the pages that are not in docs/."""
  added = pages.generated(ROOT)
  for uri, path in pages.sources(ROOT).items():
    if not path.startswith("docs/"):
      added[uri] = pages.read(ROOT / path)
  added["style.css"] = (_HERE / "style.css").read_text(encoding="utf-8")
  for uri, text in added.items():
    files.append(File.generated(config, uri, content=text))
  return files


def on_page_markdown(markdown, page, config, files):
  """Makes links to files of the repository work in the site."""
  return pages.with_links(
    markdown, page.file.src_uri, root=ROOT, repository=config.repo_url
  )
