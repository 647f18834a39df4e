"""Version, citation, address and metadata agree wherever they stand."""

import json
import pathlib
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import setuptools
import yaml

import paws_jax

ROOT = pathlib.Path(__file__).parents[1]
ADDRESS = (ROOT / "colabs" / "repository.txt").read_text().strip()
# Places of the address beside the notebooks.
NAMING = ("setup.py", "CITATION.cff", "docs/site/mkdocs.yml")


def _text(name):
  return (ROOT / name).read_text(encoding="utf-8")


def _citation():
  return yaml.safe_load(_text("CITATION.cff"))


@pytest.fixture
def metadata(monkeypatch):
  """What setup.py hands to setuptools."""
  fields = {}
  monkeypatch.setattr(setuptools, "setup", fields.update)
  monkeypatch.chdir(ROOT)
  runpy.run_path("setup.py")
  return fields


def test_the_change_log_has_a_date_for_this_version():
  sections = re.findall(r"^## (.*)$", _text("CHANGELOG.md"), re.MULTILINE)
  assert sections[0] == "Unreleased"
  dated = sections[1:]
  assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", s) for s in dated)
  assert dated[0].startswith(f"{paws_jax.__version__} - ")
  assert dated[0].endswith(f" - {_citation()['date-released']}")


def test_the_citation_is_of_this_version():
  citation = _citation()
  # What the format (1.2.0) requires of software.
  assert citation["cff-version"] == "1.2.0"
  assert citation["message"]
  assert citation["type"] == "software"
  assert citation["title"] == "paws_jax"
  assert citation["authors"] == [{"name": "The paws_jax authors"}]
  assert str(citation["version"]) == paws_jax.__version__


def test_the_citation_refers_to_the_papers_of_the_code():
  code = "\n".join(
    _text(f"paws_jax/losses/{name}.py") for name in ("paws", "ropaws", "suncet")
  )
  papers = _citation()["references"]
  identifiers = [paper["identifiers"][0]["value"] for paper in papers]
  assert identifiers == [
    f"arXiv:{n}" for n in re.findall(r"arXiv (\S+?)\)", code)
  ]
  for paper in papers:
    assert {"type", "title", "authors", "year"} <= paper.keys()
    assert all(len(person) == 2 for person in paper["authors"])
  assert f"year      = {{{papers[0]['year']}}}" in _text("README.md")


@pytest.mark.parametrize("name", NAMING)
def test_a_file_has_the_address_of_one_place(name):
  found = re.findall(r"https://github\.com/([\w.-]+/[\w.-]+)", _text(name))
  assert found == [ADDRESS]


def test_the_address_is_written_into_all_files(tmp_path):
  shutil.copytree(ROOT / "colabs", tmp_path / "colabs")
  for name in NAMING:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / name, tmp_path / name)
  (tmp_path / "colabs" / "repository.txt").write_text("someone/somewhere\n")
  script = str(tmp_path / "colabs" / "set_repository.py")
  subprocess.run([sys.executable, script], check=True)
  for name in NAMING:
    changed = _text(name).replace(ADDRESS, "someone/somewhere")
    assert (tmp_path / name).read_text(encoding="utf-8") == changed


def test_metadata_of_the_package(metadata):
  assert metadata["version"] == paws_jax.__version__
  assert metadata["author"] == _citation()["authors"][0]["name"]
  assert metadata["license"] == _citation()["license"]
  urls = [metadata["url"], *metadata["project_urls"].values()]
  assert all(url.startswith(f"https://github.com/{ADDRESS}") for url in urls)
  # Paths in the repository exist.
  for url in urls:
    _, blob, path = url.partition("/blob/main/")
    assert not blob or (ROOT / path).is_file()


def test_classifiers_of_the_package(metadata):
  names = metadata["classifiers"]
  # The licence is an expression: setuptools refuses a classifier beside it.
  assert not [name for name in names if name.startswith("License ::")]
  assert len(set(names)) == len(names)
  pythons = [name for name in names if re.search(r":: 3\.\d+$", name)]
  smallest = min(int(name.rpartition(".")[2]) for name in pythons)
  assert metadata["python_requires"] == f">=3.{smallest}"
  assert "Typing :: Typed" in names
  assert (ROOT / "paws_jax" / "py.typed").is_file()


def test_the_tests_install_what_the_documentation_needs(metadata):
  assert json.dumps(metadata["extras_require"]["docs"]).count("mkdocs") == 3
  makefile = _text("Makefile")
  assert '-e ".[dev,docs]"' in makefile
  assert re.search(r"^test: .*\bdocs\b", makefile, re.MULTILINE)
  assert re.search(r"^\.PHONY:.* docs\b", makefile, re.MULTILINE)
