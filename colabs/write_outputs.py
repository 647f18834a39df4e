"""Runs the notebooks next to it and stores their outputs in them.

python colabs/write_outputs.py [NAME ...]

Each is run in an empty directory, as after `pip install`, on the machine at
hand; the first cell of a notebook says which one that was. Needs the extra
`dev`.
"""

import base64
import io
import json
import os
import pathlib
import re
import sys
import tempfile

import nbclient
import nbformat
from PIL import Image

_HERE = pathlib.Path(__file__).resolve().parent
_ROOT = _HERE.parent
# What makes the outputs of a few minutes on two cores; the first cell of each
# notebook names it.
SETTINGS = {
  "quickstart": {},
  "own_images": {"PAWS_JAX_FLAGS": "--config.train.epochs=5"},
  "pretrain_tpu": {
    "PAWS_JAX_RECIPE": "configs/quickstart.py",
    "PAWS_JAX_FLAGS": "--config.train.epochs=20",
  },
}
_IMAGE_SIDE = 640
_COLORS = 48
# Many lines of progress, one after the other.
_PROGRESS = re.compile(r"^(?:step \d+/\d+ .*\n){8,}", re.MULTILINE)


def main(names: list[str]) -> int:
  """Writes the outputs of these notebooks, or of all."""
  for name in names or sorted(SETTINGS):
    path = _HERE / f"{name}.ipynb"
    with tempfile.TemporaryDirectory() as directory:
      executed = _execute(path, directory, SETTINGS[name])
      outputs = [_clean(cell, directory) for cell in executed["cells"]]
    book = json.loads(path.read_text(encoding="utf-8"))
    for cell, found in zip(book["cells"], outputs, strict=True):
      if cell["cell_type"] == "code":
        cell |= found
    text = json.dumps(book, indent=1, ensure_ascii=False, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")
    print(f"wrote {path.name}: {path.stat().st_size / 1e3:.0f} kB")
  return 0


def _execute(path, directory, settings):
  """Runs a notebook from top to bottom in a directory with the recipes."""
  book = nbformat.read(path, as_version=4)
  (pathlib.Path(directory) / "configs").symlink_to(_ROOT / "configs")
  os.environ |= settings | {"PYTHONPATH": str(_ROOT)}
  client = nbclient.NotebookClient(
    book, timeout=3600, resources={"metadata": {"path": directory}}
  )
  client.execute()
  for name in settings:
    del os.environ[name]
  return book


def _clean(cell, directory):
  """Outputs of a cell without paths of this machine, times and large images."""
  if cell["cell_type"] != "code":
    return {}
  outputs = []
  for output in cell["outputs"]:
    kind = output["output_type"]
    if kind == "stream":
      text = clean_text(output["text"], directory)
      if outputs and outputs[-1]["output_type"] == "stream":
        outputs[-1]["text"] += text.splitlines(keepends=True)
      else:
        outputs.append(
          {
            "name": "stdout",
            "output_type": "stream",
            "text": text.splitlines(keepends=True),
          }
        )
    elif "image/png" in output.get("data", {}):
      outputs.append(
        {
          "data": {"image/png": small_png(output["data"]["image/png"])},
          "metadata": {},
          "output_type": "display_data",
        }
      )
  return {"execution_count": cell["execution_count"], "outputs": outputs}


def clean_text(text: str, directory: str) -> str:
  """Text as a terminal shows it, with paths relative to the directory."""
  for place in (os.path.realpath(directory), directory):
    text = text.replace(f"{place}/", "").replace(place, ".")
  # Of a line that is written again and again the last state stays.
  lines = [line.rpartition("\r")[2] for line in text.split("\n")]
  text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", "\n".join(lines))
  return _PROGRESS.sub(_first_and_last, text)


def _first_and_last(match: re.Match[str]) -> str:
  lines = match[0].splitlines(keepends=True)
  return "".join([*lines[:3], "...\n", *lines[-2:]])


def small_png(encoded: str) -> str:
  """A PNG of few colors and at most 640 pixels, in base64."""
  image = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
  image.thumbnail((_IMAGE_SIDE, _IMAGE_SIDE))
  file = io.BytesIO()
  image.quantize(_COLORS).save(file, "PNG", optimize=True)
  return base64.b64encode(file.getvalue()).decode()


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
