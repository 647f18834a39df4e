"""docs/adding_a_method.md, followed step by step, gives a working method."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from tests import quick_compile

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "adding_a_method.md"


def _files():
  """{path: content} of the page."""
  return dict(
    re.findall(
      r"<!-- file: (\S+) -->\n```python\n(.*?)```", PAGE.read_text(), re.S
    )
  )


def _registry_line():
  (line,) = re.findall(
    r'^  "\w+": "paws_jax\.methods\.[\w.]+",$', PAGE.read_text(), re.M
  )
  return line


@pytest.fixture(scope="module")
def project(tmp_path_factory):
  """A copy of the project with the page's files and its line."""
  root = tmp_path_factory.mktemp("project")
  ignored = shutil.ignore_patterns("__pycache__")
  for name in ("paws_jax", "configs"):
    shutil.copytree(ROOT / name, root / name, ignore=ignored)
  for name, content in _files().items():
    path = root / name
    assert not path.exists()
    path.write_text(content)
  registry = root / "paws_jax" / "config" / "methods" / "__init__.py"
  text = registry.read_text()
  head, start, rest = text.partition("METHODS = {\n")
  assert start
  lines, end, rest = rest.partition("}\n")
  registry.write_text(f"{head}{start}{lines}{_registry_line()}\n{end}{rest}")
  return root


def _run(project, *arguments):
  result = subprocess.run(
    [sys.executable, "-m", "paws_jax.main", *arguments],
    cwd=project,
    env=os.environ | quick_compile.ENVIRON,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  assert result.returncode == 0, result.stdout + result.stderr
  return result.stdout


def test_the_page_names_all_files_of_its_table():
  names = {name.replace("momentum", "NAME") for name in _files()}
  table = set(re.findall(r"^\| `(\S+NAME\S*)` \|", PAGE.read_text(), re.M))
  assert names | {"tests/methods/NAME_test.py"} == table


@pytest.mark.slow
def test_the_method_trains_resumes_and_predicts(project, tmp_path):
  workdir = tmp_path / "run"
  recipe = (
    "--config=configs/momentum.py",
    f"--workdir={workdir}",
    "--config.log.every_steps=1",
  )
  _run(project, *recipe, "--config.train.epochs=1")
  # Goes on from its checkpoint, the queue and the average with it.
  out = _run(project, *recipe, "--config.train.epochs=2")
  assert "resuming from the checkpoint of step 11" in out
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
  losses = [row["contrast"] for row in rows if "contrast" in row]
  assert len(losses) == 22
  assert sum(losses[-5:]) < sum(losses[:5])
  _run(project, "--task=evaluate", f"--workdir={workdir}")
  images = tmp_path / "images"
  images.mkdir()
  from PIL import Image

  Image.new("L", (8, 8), 90).save(images / "a.png")
  _run(project, "--task=predict", f"--workdir={workdir}", f"--images={images}")
  lines = (workdir / "predictions.csv").read_text().splitlines()
  assert len(lines) == 2
  # Another run starts from its average network.
  out = _run(
    project,
    "--config=configs/momentum.py",
    f"--workdir={tmp_path / 'next'}",
    "--config.train.epochs=1",
    f"--config.model.init_from={workdir}",
  )
  assert "(a run, step 22)" in out
