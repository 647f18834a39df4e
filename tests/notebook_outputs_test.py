"""The notebooks hold the outputs of one run, small and without our paths."""

import base64
import json
import pathlib
import re
import runpy

import pytest

COLABS = pathlib.Path(__file__).parents[1] / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
WRITER = runpy.run_path(str(COLABS / "write_outputs.py"))
# Absolute paths, but for those of addresses.
_PATH = re.compile(r"(?<![\w.:/>-])/(?:[a-z]\w*/)+\w+")


def _code(path):
  cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
  return [cell for cell in cells if cell["cell_type"] == "code"]


def _text(output):
  return "".join(output.get("text", ()))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_outputs_are_of_one_run_from_top_to_bottom(path):
  cells = _code(path)
  counts = [cell["execution_count"] for cell in cells]
  assert counts == list(range(1, len(cells) + 1))
  for cell in cells:
    shows = re.search(
      r"notebook\.run|print\(|Image\(|show\(", "".join(cell["source"])
    )
    assert bool(cell["outputs"]) == bool(shows)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_name_no_path_of_a_machine_and_no_failure(path):
  outputs = [output for cell in _code(path) for output in cell["outputs"]]
  assert {output["output_type"] for output in outputs} <= {
    "stream",
    "display_data",
  }
  for output in outputs:
    assert not _PATH.findall(_text(output))
    assert "Traceback" not in _text(output)
    assert len(_text(output).splitlines()) < 80


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_have_one_or_two_small_images(path):
  images = [
    base64.b64decode(output["data"]["image/png"])
    for cell in _code(path)
    for output in cell["outputs"]
    if "data" in output
  ]
  assert 1 <= len(images) <= 2
  assert all(image[1:4] == b"PNG" and len(image) < 80_000 for image in images)


def test_all_notebooks_together_are_small():
  assert sum(path.stat().st_size for path in NOTEBOOKS) < 300_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_says_on_what_its_outputs_were_made(path):
  cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
  first = " ".join("".join(cells[0]["source"]).split())
  assert "The outputs below were made on a CPU with two cores" in first
  settings = " ".join(WRITER["SETTINGS"][path.stem].values())
  for epochs in re.findall(r"epochs=(\d+)", settings):
    assert f"{epochs} epochs" in first


def test_text_is_that_of_a_terminal_without_the_directory():
  steps = [f"step {i}/20  loss 1\n" for i in range(20)]
  text = f"\x1b[1mread\x1b[0m /x/y/runs/a\n1 %\r2 %\n{''.join(steps)}in /x/y\n"
  assert WRITER["clean_text"](text, "/x/y") == (
    "read runs/a\n2 %\n"
    + "".join([*steps[:3], "...\n", *steps[-2:]])
    + "in .\n"
  )
