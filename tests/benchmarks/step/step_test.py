"""benchmarks/step/step.py as its users run it."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from tests import forked
from tests import quick_compile

_ROOT = pathlib.Path(__file__).parents[3]
_QUICKSTART = "--config=configs/quickstart.py"
# Small in everything that compiling or a step takes time for.
_TINY = (
  "--config.model.name=small_resnet",
  "--config.model.width=1",
  "--config.model.output_dim=8",
  "--config.train.batch_size=8",
  "--config.support.images_per_class=2",
  "--config.views.large.size=12",
  "--config.views.small.count=1",
  "--config.views.small.size=8",
  "--config.views.rotation_degrees=0.0",
  "--windows=1",
  "--steps=1",
  "--warmup=0",
)
_NUMBER = r"[0-9.e+-]+"
_HAS_TORCH = importlib.util.find_spec("torch") is not None

# Each starts an interpreter and imports JAX.
pytestmark = pytest.mark.slow


def _run(*arguments, num_devices=1):
  return subprocess.run(
    [sys.executable, "-m", "benchmarks.step.step", *arguments],
    cwd=_ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(num_devices),
      "PYTHONPATH": str(_ROOT),
      **quick_compile.ENVIRON,
    },
    capture_output=True,
    text=True,
    check=False,
  )


def _rate(name, kind="unlabelled", num_devices=1):
  each = rf" \({_NUMBER} a device\)" if num_devices > 1 else ""
  return (
    rf"^{name}: {_NUMBER} steps/s, {_NUMBER} {kind} images/s{each}; seconds "
    rf"per step {_NUMBER}, windows {_NUMBER} to {_NUMBER}$"
  )


def _seconds(result, name):
  found = re.search(
    rf"^{name}: .*; seconds per step ({_NUMBER}),", result.stdout, re.MULTILINE
  )
  return float(found[1])


def _gflop(result, name):
  found = re.search(rf"^{name}: ({_NUMBER}) GFLOP", result.stdout, re.MULTILINE)
  return float(found[1])


def test_prints_rates_of_the_step_and_of_its_parts():
  result = _run(_QUICKSTART, *_TINY, "--peer=none", num_devices=2)
  assert result.returncode == 0, result.stderr
  for line in (
    r"^device: 2 x .+ \(cpu\), \d+ CPU cores$",
    r"^versions: python [\d.]+, jax [\d.]+, flax [\d.]+$",
    r"^recipe: small_resnet x1 in float32, 8 unlabelled images as "
    r"2 x 12 and 1 x 8 pixels, 10 x 2 x 1 supports$",
    r"^data: digits, in memory; reading is .* benchmarks/input/whole_path.py$",
    rf"^compile: model part {_NUMBER} s, kept on disk {_NUMBER} s$",
    rf"^compile: views {_NUMBER} s, kept on disk {_NUMBER} s$",
    rf"^compile: whole step {_NUMBER} s, kept on disk {_NUMBER} s$",
    "^windows: 1; medians of fewer than 3 say little$",
    _rate("model part", num_devices=2),
    _rate("with augmentation", num_devices=2),
    _rate("whole step", num_devices=2),
    rf"^whole step, each device: {_NUMBER} GFLOP, {_NUMBER} GB to and from "
    rf"memory, peak memory \d+ MiB; {_NUMBER} GFLOP/s",
  ):
    assert re.search(line, result.stdout, re.MULTILINE), (line, result.stdout)
  assert "ratio" not in result.stdout
  # Two devices share eight images.
  assert _gflop(result, "model part") == pytest.approx(
    _gflop(result, "model part, each device") * 2 / 8, rel=1e-3
  )
  told = re.search(
    r"^cutting the views: (-?[\d.]+)% of the step with augmentation$",
    result.stdout,
    re.MULTILINE,
  )
  alone = _seconds(result, "model part")
  share = 1 - alone / _seconds(result, "with augmentation")
  # Seconds are printed with four digits.
  assert float(told[1]) / 100 == pytest.approx(
    share, abs=6e-4 + 1e-3 * abs(1 - share)
  )


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
    "^data: random, in memory",
    _rate("model part", "labelled"),
    _rate("with augmentation", "labelled"),
    _rate("whole step", "labelled"),
    rf"^model part: {_NUMBER} GFLOP per labelled image$",
  ):
    assert re.search(line, result.stdout, re.MULTILINE), (line, result.stdout)


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
@pytest.mark.parametrize(
  "change",
  [
    "optim.name=lars",
    "optim.name=sgd",
    "views.small.count=0",
    "model.name=wide_resnet10",
    "model.name=resnet_tiny",
    "model.prediction_head=True",
    "method.support_loss_weight=0.5",
  ],
)
def test_the_peer_has_the_same_losses(change):
  result = _run(_QUICKSTART, *_TINY, f"--config.{change}", "--check")
  assert result.returncode == 0, result.stdout + result.stderr
  assert result.stdout.count(" equal within ") == 3
  # Of what a recipe has not, nothing is said.
  assert " 0 x " not in result.stdout


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
@pytest.mark.parametrize("name", ["imagenet-slice", "rn50-supervised"])
def test_the_peer_has_the_same_losses_on_a_slice(name):
  changes = (
    *_TINY,
    "--config.data.canvas_size=64",
    "--config.model.name=resnet_tiny",
    "--config.support.classes_per_step=4",
    # Of smaller ones the last maps are a pixel.
    "--config.views.large.size=64",
    "--config.views.small.size=48",
    # What would show rounding: a difference of two numbers, cosines ten-fold,
    # and a large learning rate.
    "--config.method.me_max=False",
    "--config.method.temperature=0.5",
    "--config.optim.start_lr=0.01",
    "--config.optim.peak_lr=0.01",
  )
  result = _run(f"--slice={name}", *changes, "--check")
  assert result.returncode == 0, result.stdout + result.stderr
  assert result.stdout.count(" equal within ") == 3
  # Of what a recipe has not, nothing is said.
  assert " 0 x " not in result.stdout


@pytest.mark.skipif(not _HAS_TORCH, reason="compares with PyTorch")
def test_the_ratio_to_the_peer_is_the_last_line():
  result = _run(_QUICKSTART, *_TINY, "--peer=torch", "--synthetic")
  assert result.returncode == 0, result.stderr
  assert "data: random, " in result.stdout
  assert re.search(_rate("torch peer"), result.stdout, re.MULTILINE)
  last = result.stdout.splitlines()[-1]
  assert re.fullmatch(r"ratio: \d+\.\d\d", last), last


def test_help_shows_the_shared_flags_too():
  told = _run("--help").stdout
  for flag in ("config", "slice", "peer", "windows"):
    assert re.search(rf"^ +--{flag}: ", told, re.MULTILINE), (flag, told)


# Arguments, and what the message must have.
_REFUSED = [
  (
    [],
    "--config is missing: give a recipe, e.g. "
    "--config=configs/quickstart.py, or --slice=imagenet-slice|cifar10|",
  ),
  (
    [_QUICKSTART, "--slice=cifar10"],
    "error: --slice=cifar10 and --config=configs/quickstart.py are both",
  ),
  (["--slice=cifar"], "error: --slice=cifar: known are imagenet-slice, "),
  (["--config=nowhere.py"], "error: --config=nowhere.py: there is no such"),
  (
    [_QUICKSTART, "--config.train.typo=3"],
    "error: a recipe has no such field: 'typo'",
  ),
  ([_QUICKSTART, "cifar10"], "unknown arguments: cifar10"),
  ([_QUICKSTART, "--windows=0"], "flag --windows=0"),
  ([_QUICKSTART, "--peer=jax"], "<auto|torch|none>"),
  ([_QUICKSTART, "--check", "--peer=none"], "drop --peer=none"),
  (
    [_QUICKSTART, "--config.method.temperature=0"],
    "method.temperature is 0.0: it must be in [1e-6, 1e6]",
  ),
]
if not _HAS_TORCH:
  message = "PyTorch is not installed: pip install torch"
  _REFUSED.append(([_QUICKSTART, "--peer=torch"], message))


@pytest.fixture(scope="module")
def refused():
  return forked.run("benchmarks.step.step", [case[0] for case in _REFUSED])


@pytest.mark.parametrize("number", range(len(_REFUSED)))
def test_refuses_bad_arguments(refused, number):
  result, message = refused[number], _REFUSED[number][1]
  assert result.returncode != 0
  assert message in result.stdout + result.stderr
  assert "Traceback" not in result.stderr
