"""benchmarks/step/convolutions.py as its users run it."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

_ROOT = pathlib.Path(__file__).parents[3]
_RECIPE = "--config=tests/tiny_recipe.py"
# Supports alone: one pass of the encoder to trace. A wide ResNet's first block
# has two convolutions of the same shape.
_TINY = (
  _RECIPE,
  "--config.method.name=supervised",
  "--config.train.batch_size=8",
  "--windows=1",
  "--steps=1",
  "--warmup=1",
)
_NUMBER = r"[0-9.e+-]+"
_SIDE = rf"{_NUMBER} ms, {_NUMBER} GFLOP/s"
_HAS_TORCH = importlib.util.find_spec("torch") is not None

# Each starts an interpreter and imports JAX.
pytestmark = pytest.mark.slow


def _run(*arguments):
  return subprocess.run(
    [sys.executable, "-m", "benchmarks.step.convolutions", *arguments],
    cwd=_ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": "2",
      "PYTHONPATH": str(_ROOT),
    },
    capture_output=True,
    text=True,
    check=False,
  )


def _cost(line, side):
  """Milliseconds, and MFLOP, that a line tells of one."""
  found = re.search(rf"{side} ({_NUMBER}) ms, ({_NUMBER}) GFLOP/s", line)
  milliseconds, rate = map(float, found.groups())
  return np.array([milliseconds, milliseconds * rate])


def _check_sums(result, side):
  """Every convolution counts as often as the step has it."""
  lines = result.stdout.splitlines()
  each = [line for line in lines if re.match(r"\d+ x ", line)]
  (total,) = (x for x in lines if x.startswith("the step's convolutions: "))
  told = _cost(total, side)
  wanted = sum(int(line.split()[0]) * _cost(line, side) for line in each)
  np.testing.assert_allclose(told, wanted, rtol=2e-3)
  return told[0]


def test_prints_each_convolution_and_their_sums():
  result = _run(*_TINY, "--peer=none")
  assert result.returncode == 0, result.stderr
  # 10 supports, shared by two devices; no gradient by the images.
  for line in (
    r"device: 2 x .+ \(cpu\), \d+ CPU cores",
    "step: 26 convolutions, 23 distinct ones, of 1 device of 2; one thread "
    "each on a CPU",
    "1 x forward, images 5 x 8 x 8 x 1, kernel 3 x 3 x 1 x 16, stride 1, "
    rf"float32: XLA {_SIDE}",
    "2 x gradient by input, images 5 x 8 x 8 x 16, kernel 3 x 3 x 16 x 16, "
    rf"stride 1, float32: XLA {_SIDE}",
    "1 x gradient by kernel, images 5 x 8 x 8 x 1, kernel 3 x 3 x 1 x 16, "
    rf"stride 1, float32: XLA {_SIDE}",
    rf"forward, all: XLA {_SIDE}",
    rf"gradient by input, all: XLA {_SIDE}",
    rf"gradient by kernel, all: XLA {_SIDE}",
  ):
    assert re.search(rf"^{line}$", result.stdout, re.MULTILINE), (
      line,
      result.stdout,
    )
  assert result.stdout.count("gradient by input, images") == 7
  assert "ratio" not in result.stdout
  _check_sums(result, "XLA")


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
def test_the_ratio_to_the_peer_is_the_last_line():
  result = _run(*_TINY, "--peer=torch")
  assert result.returncode == 0, result.stderr
  ours, theirs = (_check_sums(result, side) for side in ("XLA", "PyTorch"))
  last = result.stdout.splitlines()[-1]
  assert re.fullmatch(r"ratio: \d+\.\d\d", last), last
  assert float(last.split()[1]) == pytest.approx(theirs / ours, abs=0.01)


def test_help_shows_the_shared_flags_too():
  told = _run("--help").stdout
  for flag in ("config", "slice", "peer", "windows"):
    assert re.search(rf"^ +--{flag}: ", told, re.MULTILINE), (flag, told)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "--config is missing: give a recipe, e.g. --config=configs/"),
    ([_RECIPE, "--slice=cifar10"], "error: --slice=cifar10 and --config="),
    (["--config=nowhere.py"], "error: --config=nowhere.py: there is no such"),
    ([_RECIPE, "cifar10"], "unknown arguments: cifar10"),
    ([_RECIPE, "--steps=0"], "flag --steps=0"),
    (
      [_RECIPE, "--config.method.temperature=0"],
      "method.temperature is 0.0: it must be in [1e-6, 1e6]",
    ),
    pytest.param(
      [_RECIPE, "--peer=torch"],
      "PyTorch is not installed: pip install torch",
      marks=pytest.mark.skipif(_HAS_TORCH, reason="it is installed"),
    ),
  ],
)
def test_refuses_bad_arguments(arguments, message):
  result = _run(*arguments)
  assert result.returncode != 0
  assert message in result.stdout + result.stderr
  assert "Traceback" not in result.stderr
