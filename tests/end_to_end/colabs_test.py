"""The notebooks run from top to bottom, and name one repository."""

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
COLABS = ROOT / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
# Everything small: the point is that the cells fit together. Views that are
# only cut are compiled in half the time.
_TINY_VIEWS = " ".join(
  [
    "--config.views.large.size=16 --config.views.eval_resize=16",
    "--config.views.small.count=0 --config.views.rotation_degrees=0.0",
    *(
      f"--config.views.{name}_probability=0.0"
      for name in ("flip", "jitter", "grey", "blur")
    ),
    "--config.model.name=small_resnet --config.model.output_dim=8",
    "--config.optim.warmup_epochs=0.0",
  ]
)
SMALL = {
  "quickstart": {"PAWS_JAX_FLAGS": f"--config.train.epochs=1 {_TINY_VIEWS}"},
  "own_images": {
    "PAWS_JAX_FLAGS": f"--config.train.epochs=1 {_TINY_VIEWS} "
    "--config.data.canvas_size=32"
  },
  "pretrain_tpu": {
    "PAWS_JAX_RECIPE": "tests/tiny_recipe.py",
    "PAWS_JAX_FLAGS": "--config.model.name=small_resnet",
  },
}
_RUN = """
import sys
import nbclient
import nbformat

path, directory = sys.argv[1:]
book = nbformat.read(path, as_version=4)
nbclient.NotebookClient(
  book, timeout=900, resources={"metadata": {"path": directory}}
).execute()
nbformat.write(book, directory + "/executed.ipynb")
"""


def _sources(path):
  book = json.loads(path.read_text(encoding="utf-8"))
  return ["".join(cell["source"]) for cell in book["cells"]]


def test_there_are_three():
  assert [path.stem for path in NOTEBOOKS] == sorted(SMALL)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_badge_and_clone_have_the_address_of_one_place(path):
  address = (COLABS / "repository.txt").read_text().strip()
  text = "\n".join(_sources(path))
  found = re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/blob|\")", text)
  assert found == [address] * 2
  assert f"/blob/main/colabs/{path.name})" in text


def test_the_address_is_written_into_all_notebooks(tmp_path):
  shutil.copytree(COLABS, tmp_path / "colabs")
  (tmp_path / "colabs" / "repository.txt").write_text("someone/somewhere\n")
  command = [sys.executable, str(tmp_path / "colabs" / "set_repository.py")]
  subprocess.run(command, check=True)
  for path in (tmp_path / "colabs").glob("*.ipynb"):
    text = path.read_text()
    assert text.count("someone/somewhere") == 2
    json.loads(text)
  (tmp_path / "colabs" / "repository.txt").write_text("nothing\n")
  result = subprocess.run(command, capture_output=True, text=True)
  assert result.returncode == 2
  assert "OWNER/NAME" in result.stdout


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_kept_small(path):
  assert path.stat().st_size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(path, tmp_path):
  for name in ("configs", "tests/tiny_recipe.py"):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(ROOT / name)
  result = subprocess.run(
    [sys.executable, "-c", _RUN, str(path), str(tmp_path)],
    env=os.environ
    | quick_compile.ENVIRON
    | SMALL[path.stem]
    | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    cwd=tmp_path,
  )
  assert result.returncode == 0, result.stderr[-3000:]
  executed = json.loads((tmp_path / "executed.ipynb").read_text())
  outputs = [cell.get("outputs") for cell in executed["cells"]]
  assert sum(bool(output) for output in outputs) >= 4
