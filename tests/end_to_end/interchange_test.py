"""docs/embed.md and docs/interchange.md: all runs as it stands there.

FiftyOne and cleanlab need not be installed, and FiftyOne would start a
database: what the pages call of them is replaced here.
"""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from tests import random_classifier

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]


def blocks(page):
  """(language, text) of the blocks of a page, in order."""
  text = (ROOT / "docs" / page).read_text(encoding="utf-8")
  return re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run_command(line):
  """Runs a command of the page that works on a saved classifier."""
  if line.startswith("paws-jax "):
    arguments = shlex.split(line)[1:]
  else:
    arguments = shlex.split(line.removeprefix("python -m paws_jax.main "))
  result = subprocess.run(
    [sys.executable, "-m", "paws_jax.main", *arguments],
    env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr


@pytest.fixture
def work(tmp_path, monkeypatch):
  """A directory with images, a saved classifier and what a report leaves."""
  monkeypatch.chdir(tmp_path)
  pixels = random_classifier.pixels((9, 12, 1), 6)
  for k, name in enumerate(
    ["unlabelled/1", "unlabelled/2", "unlabelled/3", "test/a", "test/b"]
  ):
    path = tmp_path / "photos" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[k, ..., 0]).save(path)
  (tmp_path / "photos" / "labelled").mkdir()
  random_classifier.make().save("runs/photos/classifier")
  pathlib.Path("runs/photos/label_next.csv").write_text(
    "path,suggested_class,probability,entropy,novelty,reason\n"
    "../unlabelled/2.png,ant,0.5,0.7,0.2,undecided\n"
  )
  return tmp_path


def test_embed(work):
  for language, text in blocks("embed.md"):
    if language == "python":
      names = {}
      exec(text, names)
      assert len(names["similar"]) == 5
    elif "--classifier" in text:
      run_command(text.strip())
  assert (work / "photos.npz").exists()


def export(tasks):
  """The answers of Label Studio: the first two, and one that is skipped."""
  tags = {"from_name": "class", "to_name": "image", "type": "choices"}
  results = [
    [{**tags, "value": {"choices": ["ant"]}}],
    [{**tags, "value": {"choices": ["bee"]}}],
    [],
  ]
  return [
    {
      "id": number,
      "data": task["data"],
      "annotations": [{"was_cancelled": not result, "result": result}],
    }
    for number, (task, result) in enumerate(zip(tasks, results, strict=True), 1)
  ]


class Made:
  """Anything of FiftyOne."""

  def __init__(self, *args, **fields):
    vars(self).update(fields)
    self.samples = []

  def add_samples(self, samples):
    self.samples += samples


def test_interchange(work, monkeypatch, capsys):
  names = ("Classification", "Classifications", "Sample", "Dataset")
  fake = types.SimpleNamespace(**dict.fromkeys(names, Made))
  monkeypatch.setitem(sys.modules, "fiftyone", fake)

  def find_label_issues(labels, pred_probs, *, return_indices_ranked_by):
    assert pred_probs.shape == (len(labels), 3)
    return np.array([0])

  monkeypatch.setitem(sys.modules, "cleanlab", types.ModuleType("cleanlab"))
  monkeypatch.setitem(
    sys.modules,
    "cleanlab.filter",
    types.SimpleNamespace(find_label_issues=find_label_issues),
  )
  variables = {}
  for language, text in blocks("interchange.md"):
    if not language:
      for line in text.splitlines():
        run_command(line)
      continue
    if "export.json" in text:
      tasks = json.loads((work / "tasks.json").read_text())
      (work / "export.json").write_text(json.dumps(export(tasks)))
    exec(text, variables)
  assert "2 labelled, 1 skipped" in capsys.readouterr().out
  (task,) = json.loads((work / "tasks_next.json").read_text())
  assert task["data"]["path"] == "unlabelled/2.png"
  assert (work / "photos" / "manifest.csv").read_text() == (
    "path,label\nunlabelled/1.png,ant\nunlabelled/2.png,bee\n"
    "unlabelled/3.png,\n"
  )
  samples = variables["dataset"].samples
  assert [len(sample.embedding) for sample in samples] == [6, 6, 6]
  assert (work / "for_fiftyone" / "labels.json").exists()
  assert variables["arrays"].labels.tolist() == [0, 1]
