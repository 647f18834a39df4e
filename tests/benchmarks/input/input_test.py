"""benchmarks/input/input.py as its users run it."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[3]
_TINY = ("--images=8", "--windows=1", "--batch=4", "--canvas=500")
_NUMBER = r"[0-9.e+-]+"

# Each starts an interpreter and imports JAX and TensorFlow.
pytestmark = pytest.mark.slow


def _run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "benchmarks.input.input", *arguments],
    cwd=_ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )


def test_prints_rates_ratios_and_memory(tmp_path):
  result = _run(f"--dir={tmp_path}", "--make=6", "--steps=20", *_TINY)
  assert result.returncode == 0, result.stderr
  for line in (
    r"^device: 1 x .+ \(cpu\), \d+ CPU cores$",
    r"^versions: python [\d.]+, jax [\d.]+, flax [\d.]+, tensorflow [\d.]+, "
    r"pillow [\d.]+$",
    r"^data: 6 JPEGs of \d+ kB, the first 500 x 375; canvas 500, batch 4$",
    r"^memory: \d+ MB after 2 steps, \d+ MB after 20$",
  ):
    assert re.search(line, result.stdout, re.MULTILINE), (line, result.stdout)
  for name in ("tensorflow", "ours", "without_tensorflow", "pillow"):
    line = rf"^{name}: {_NUMBER} images/s per core, windows {_NUMBER} to "
    assert re.search(line, result.stdout, re.MULTILINE), (line, result.stdout)
  last = result.stdout.splitlines()[-3:]
  for line, name in zip(
    last, ("tensorflow", "without_tensorflow", "pillow"), strict=True
  ):
    assert re.fullmatch(rf"ratio to {name}: \d+\.\d\d", line), last
  # What is there is not written again.
  assert len(list(tmp_path.iterdir())) == 6
  sizes = [path.stat().st_size for path in tmp_path.iterdir()]
  assert 60e3 < sum(sizes) / 6 < 140e3


def test_too_few_images_are_an_error(tmp_path):
  result = _run(f"--dir={tmp_path}", *_TINY)
  assert result.returncode == 2
  assert f"error: {tmp_path} has 0 JPEGs but a batch takes 4" in result.stderr


def test_a_directory_of_something_else_is_not_filled(tmp_path):
  (tmp_path / "picture.png").write_bytes(b"")
  result = _run(f"--dir={tmp_path}", "--make=6", *_TINY)
  assert result.returncode == 2
  assert f"error: --dir={tmp_path} has no JPEGs" in result.stderr
  assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]
