"""benchmarks/predict.py as its users run it."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_prints_rates_and_the_ratio_last():
  result = subprocess.run(
    [
      sys.executable,
      "benchmarks/predict.py",
      "--model=resnet_tiny",
      *("--side=32", "--images=3", "--batch=2", "--windows=1", "--supports=5"),
    ],
    cwd=_ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert result.returncode == 0, result.stderr
  lines = result.stdout.splitlines()
  number = r"[0-9.e+-]+"
  for name, line in zip(
    ("encoder", "arrays", "files"), lines[1:4], strict=True
  ):
    assert re.fullmatch(
      rf"{name}: {number} images/s, windows {number} to {number}", line
    )
  assert re.fullmatch(r"ratio: \d+\.\d\d", lines[-1])
