"""Dockerfiles: what they copy is there and is all that their commands need.

Docker is not needed: each COPY is made in a directory, in which the package is
then built as pip builds it.
"""

import fnmatch
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = ("Dockerfile", "Dockerfile.serve")
_INSTRUCTIONS = {
  *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "EXPOSE", "CMD"),
}


def _instructions(name):
  """(instruction, rest of the line) of a file in launch/."""
  text = (ROOT / "launch" / name).read_text(encoding="utf-8")
  lines = text.replace("\\\n", " ").splitlines()
  lines = [line for line in lines if line and not line.startswith("#")]
  return [tuple(line.split(maxsplit=1)) for line in lines]


def _of(name, kind):
  return [rest for found, rest in _instructions(name) if found == kind]


def _copy(name, directory):
  """Makes every COPY of a file in a directory."""
  for rest in _of(name, "COPY"):
    *sources, target = shlex.split(rest)
    for source in sources:
      place = directory / target
      if target.endswith("/"):
        place = place / source
      if (ROOT / source).is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / source, place, ignore=ignored)
      else:
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, place)


def test_all_files_are_examined():
  found = {path.name for path in (ROOT / "launch").glob("Dockerfile*")}
  assert found == {*FILES, *(f"{name}.dockerignore" for name in FILES)}


@pytest.mark.parametrize("name", FILES)
def test_instructions_are_those_of_docker(name):
  kinds = [kind for kind, _ in _instructions(name)]
  assert kinds[0] == "FROM"
  assert set(kinds) <= _INSTRUCTIONS
  assert kinds.count("CMD") <= 1
  (image,) = _of(name, "FROM")
  assert re.fullmatch(r"python:3\.\d+-slim", image)
  for rest in _of(name, "CMD"):
    assert all(isinstance(word, str) for word in json.loads(rest))
  for rest in _of(name, "RUN"):
    if "pip install" in rest:
      assert "--no-cache-dir" in rest


@pytest.mark.parametrize("name", FILES)
def test_nothing_that_is_copied_is_ignored(name):
  ignored = (ROOT / "launch" / f"{name}.dockerignore").read_text().split()
  for rest in _of(name, "COPY"):
    *sources, target = shlex.split(rest)
    assert target.endswith("/") or len(sources) == 1
    for source in sources:
      assert (ROOT / source).exists(), source
      assert not any(fnmatch.fnmatch(source, each) for each in ignored)


@pytest.mark.parametrize("name", FILES)
def test_the_package_is_built_of_what_is_copied(name, tmp_path):
  _copy(name, tmp_path)
  light = any("PAWS_JAX_LIGHT=1" in rest for rest in _of(name, "RUN"))
  result = subprocess.run(
    [sys.executable, "setup.py", "--quiet", "egg_info"],
    cwd=tmp_path,
    env=os.environ | {"PAWS_JAX_LIGHT": str(int(light))},
    capture_output=True,
    text=True,
    timeout=120,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  required = (tmp_path / "paws_jax.egg-info" / "requires.txt").read_text()
  assert ("tensorflow" in required) != light
  assert light == (name == "Dockerfile.serve")
  top = (tmp_path / "paws_jax.egg-info" / "SOURCES.txt").read_text().split()
  assert {"configs/quickstart.py", "paws_jax/main.py"} <= set(top)


def test_the_service_is_the_one_in_the_documents(tmp_path):
  _copy("Dockerfile.serve", tmp_path)
  (words,) = _of("Dockerfile.serve", "CMD")
  program, directory, factory, function, host = json.loads(words)
  assert (program, factory, host) == ("uvicorn", "--factory", "--host=0.0.0.0")
  module, name = function.split(":")
  path = tmp_path / directory.removeprefix("--app-dir=") / f"{module}.py"
  assert f"def {name}(" in path.read_text(encoding="utf-8")
  guide = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
  assert f"uvicorn {directory} {factory} {function}" in guide
  # The comment in the file and the guide show the same commands.
  text = (ROOT / "launch" / "Dockerfile.serve").read_text(encoding="utf-8")
  for command in re.findall(r"^#   (docker .*)$", text, re.MULTILINE):
    assert command in guide
