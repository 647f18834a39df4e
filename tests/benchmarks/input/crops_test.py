"""benchmarks/input/crops.py as its users run it."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[3]
_TINY = ("--images=4", "--windows=1", "--batch=4", "--canvas=64", "--side=14")
_NUMBER = r"[0-9.e+-]+"

# Each starts an interpreter and imports JAX and TensorFlow.
pytestmark = pytest.mark.slow


def _run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "benchmarks.input.crops", *arguments],
    cwd=_ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_prints_rates_and_ratios(tmp_path):
  result = _run(f"--dir={tmp_path}", "--make=6", *_TINY)
  assert result.returncode == 0, result.stderr
  for decoder in ("pillow", "tensorflow"):
    for place in ("device", "host"):
      line = rf"^{decoder}, crops on the {place}: {_NUMBER} images/s per core"
      assert re.search(line, result.stdout, re.MULTILINE), result.stdout
  # Of two images two crops of 14 pixels and six of 6, of two supports one.
  num_bytes = 2 * (2 * 14**2 + 6 * 6**2) * 3 + 2 * 14**2 * 3
  num_bytes += 4 * 4
  canvases = 4 * (64 * 64 * 3 + 2 * 4 + 4)
  for place, sent in (("host", num_bytes), ("device", canvases)):
    assert re.search(
      rf"^crops on the {place}: .*; a step sends {sent / 1e6:.4g} MB; "
      rf"views of a step take {_NUMBER} GFLOP$",
      result.stdout,
      re.MULTILINE,
    ), result.stdout
  last = result.stdout.splitlines()[-5:]
  names = (
    "images, pillow",
    "images, tensorflow",
    "view seconds",
    "bytes",
    "operations",
  )
  for line, name in zip(last, names, strict=True):
    assert re.fullmatch(rf"ratio of {name}: \d+\.\d\d", line), last
  assert float(last[-2].split()[-1]) == round(num_bytes / canvases, 2)
  assert float(last[-1].split()[-1]) < 1


def test_too_few_images_are_an_error(tmp_path):
  result = _run(f"--dir={tmp_path}", *_TINY)
  assert result.returncode == 2
  assert f"error: {tmp_path} has 0 JPEGs, fewer than --batch" in result.stderr
