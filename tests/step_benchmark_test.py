"""benchmarks/step.py as its users run it."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parent.parent
_QUICKSTART = "--config=configs/quickstart.py"
# Small in everything that compiling or a step takes time for.
_TINY = (
  "--config.model.name=small_resnet",
  "--config.model.width=1",
  "--config.model.output_dim=8",
  "--config.train.batch_size=8",
  "--config.support.images_per_class=2",
  "--config.views.large_size=12",
  "--config.views.num_small=1",
  "--config.views.small_size=8",
  "--config.views.rotation_degrees=0.0",
  "--windows=1",
  "--steps=1",
  "--warmup=0",
)
_NUMBER = r"[0-9.e+-]+"
_HAS_TORCH = importlib.util.find_spec("torch") is not None

# Each starts an interpreter and imports JAX.
pytestmark = pytest.mark.slow


def _run(*arguments):
  return subprocess.run(
    [sys.executable, "benchmarks/step.py", *arguments],
    cwd=_ROOT,
    env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(_ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )


def _rate(name, kind="unlabelled"):
  return (
    rf"^{name}: {_NUMBER} steps/s, {_NUMBER} {kind} images/s; seconds per step "
    rf"{_NUMBER}, windows {_NUMBER} to {_NUMBER}$"
  )


def test_prints_rates_of_the_step_and_of_its_model_part():
  result = _run(_QUICKSTART, *_TINY, "--peer=none")
  assert result.returncode == 0, result.stderr
  for line in (
    r"^device: \d+ x .+ \(cpu\), \d+ CPU cores$",
    r"^versions: python [\d.]+, jax [\d.]+, flax [\d.]+$",
    r"^recipe: small_resnet x1 in float32, 8 unlabelled images as "
    r"2 x 12 and 1 x 8 pixels, 10 x 2 x 1 supports$",
    r"^data: digits$",
    rf"^compile: whole step {_NUMBER} s, kept on disk {_NUMBER} s$",
    rf"^compile: model part {_NUMBER} s, kept on disk {_NUMBER} s$",
    rf"^model part, each device: {_NUMBER} GFLOP, {_NUMBER} GB to and from",
    _rate("whole step"),
    _rate("model part"),
  ):
    assert re.search(line, result.stdout, re.MULTILINE), (line, result.stdout)
  assert "ratio" not in result.stdout


def test_a_slice_with_other_fields_on_random_images():
  changes = (
    "--config.data.canvas_size=16",
    "--config.support.classes_per_step=4",
    *_TINY,
  )
  # Changes before the name, too.
  result = _run(*changes, "--slice", "rn50-supervised", "--peer=none")
  assert result.returncode == 0, result.stderr
  for line in (
    r"^recipe: small_resnet x1 in float32, no unlabelled images, views of 12 "
    r"pixels, 4 x 2 x 1 supports$",
    r"^data: random$",
    _rate("whole step", "labelled"),
    _rate("model part", "labelled"),
  ):
    assert re.search(line, result.stdout, re.MULTILINE), (line, result.stdout)


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
@pytest.mark.parametrize(
  "change",
  [
    "optim.name=lars",
    "optim.name=sgd",
    "views.num_small=0",
    "model.name=wide_resnet10",
    "model.prediction_head=True",
    "method.support_loss_weight=0.5",
  ],
)
def test_the_peer_has_the_same_losses(change):
  result = _run(_QUICKSTART, *_TINY, f"--config.{change}", "--check")
  assert result.returncode == 0, result.stdout + result.stderr
  assert result.stdout.count(" equal within ") == 3


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
def test_the_ratio_to_the_peer_is_the_last_line():
  result = _run(_QUICKSTART, *_TINY, "--peer=torch", "--synthetic")
  assert result.returncode == 0, result.stderr
  assert "data: random\n" in result.stdout
  assert re.search(_rate("torch peer"), result.stdout, re.MULTILINE)
  last = result.stdout.splitlines()[-1]
  assert re.fullmatch(r"ratio: \d+\.\d\d", last), last


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (
      [],
      "--config is missing: give a recipe, e.g. "
      "--config=configs/quickstart.py, or --slice=imagenet-slice|cifar10|",
    ),
    (
      [_QUICKSTART, "--slice=cifar10"],
      "error: --slice=cifar10 and --config=configs/quickstart.py are both",
    ),
    (
      ["--slice=cifar"],
      "<imagenet-slice|cifar10|wrn28-2-cpu|rn50-supervised>",
    ),
    ([_QUICKSTART, "cifar10"], "unknown arguments: cifar10"),
    ([_QUICKSTART, "--windows=0"], "flag --windows=0"),
    ([_QUICKSTART, "--peer=jax"], "<auto|torch|none>"),
    ([_QUICKSTART, "--check", "--peer=none"], "drop --peer=none"),
    (
      [_QUICKSTART, "--config.method.temperature=0"],
      "method.temperature is 0.0: it must be greater than 0",
    ),
    pytest.param(
      [_QUICKSTART, "--peer=torch"],
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
