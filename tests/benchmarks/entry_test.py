"""The benchmarks of scans, augmentation, scaling and of the whole path.

As their users run them, but tiny, and with a step that computes next to
nothing: what a real one is, step_benchmark_test and others see. And what these
scripts share.
"""

import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.input import photographs
from benchmarks.step import accounting
from paws_jax.parallel import cpu_devices
from paws_jax.plan import chips
from tests import forked
from tests import quick_compile

_ROOT = pathlib.Path(__file__).parents[2]
_NUMBER = r"-?[0-9.]+(?:e[+-]?[0-9]+)?"
_PERCENT = r"-?[0-9.]+%"
_SPREAD = rf"seconds per step {_NUMBER}, windows {_NUMBER} to {_NUMBER}"
_RECIPE = (
  "--config=tests/tiny_recipe.py",
  "--config.model.name=small_resnet",
  "--config.train.batch_size=8",
  "--windows=1",
)
# Runs a script with another step, which takes half a minute less to compile: on
# each device products of its unlabelled images, and of its share of supports.
_DRIVER = """
import runpy
import sys

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax.parallel import mesh as sharding
from paws_jax.training import step as train


def square(image):
  image = image.astype(float)
  return jnp.vdot(image, image)


def total(batch):
  unlabelled, support = batch.unlabelled.image, batch.support.image
  return jax.lax.psum(square(unlabelled) + square(support), sharding.AXES)


def step(trainer, state, batch):
  loss = sharding.shard_map(
    total,
    trainer.mesh,
    in_specs=(data.batch_specs(batch),),
    out_specs=sharding.REPLICATED,
  )(batch)
  metrics = dict.fromkeys(("loss", "grad_norm", "update_norm"), loss)
  return state.replace(step=state.step + 1), metrics


train.train_step = step
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def _run(script, *arguments, num_devices=1):
  return subprocess.run(
    [sys.executable, "-c", _DRIVER, f"benchmarks.{script}", *arguments],
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


def _check_lines(result, *lines, last):
  assert result.returncode == 0, result.stderr
  setting = (
    r"device: \d+ x .+ \(cpu\), \d+ CPU cores",
    r"versions: python [\d.]+, jax [\d.]+, flax [\d.]+.*",
  )
  for line in (*setting, *lines):
    found = re.search(rf"^{line}$", result.stdout, re.MULTILINE)
    assert found, (line, result.stdout)
  assert re.fullmatch(last, result.stdout.splitlines()[-1]), result.stdout


@pytest.mark.slow
def test_scans():
  result = _run("step.scan", *_RECIPE, "--steps_per_call=2", "--steps=1")
  _check_lines(
    result,
    "data: digits, steps of an epoch: 179",
    rf"compile: plain loop {_NUMBER} s, kept on disk {_NUMBER} s",
    rf"compile: scan of 2 {_NUMBER} s, kept on disk {_NUMBER} s",
    rf"plain loop: {_SPREAD}",
    rf"scan of 2: {_SPREAD}",
    "choose: [12]",
    last=rf"ratio: {_NUMBER}",
  )


@pytest.mark.slow
def test_augmentation():
  result = _run("step.augment", "--side=8", "--batch=2", "--windows=1")
  names = ("crop", "brightness", "contrast", "saturation", "hue")
  names += ("greyscale", "blur", "solarize", "equalize")
  alternatives = ("blur, banded matrices", "blur, depthwise convolution")
  alternatives += ("equalize, comparisons", "equalize, counting")
  _check_lines(
    result,
    *(rf"{name}: {_NUMBER} us, Pillow {_NUMBER} us" for name in names),
    *(rf"{name}: {_NUMBER} us" for name in alternatives),
    rf"a large crop in one program: {_NUMBER} us; the operations alone, .*",
    r"data: 2 random images of 8 x 8, .*; both sides on the same core",
    *(
      rf"crop in precision {name}: {_NUMBER} us, 0 levels off at most "
      r"\(a CPU .* compares nothing\)"
      for name in ("HIGHEST", "DEFAULT")
    ),
    "gathers and scatters for a TPU: 0",
    last=rf"ratio: {_NUMBER}",
  )


@pytest.mark.slow
def test_scaling():
  arguments = ("--per_device=8", "--steps=1", "--warmup=0")
  result = _run("step.scaling", *_RECIPE, *arguments, num_devices=2)
  _check_lines(
    result,
    rf"1 device: {_SPREAD}",
    rf"2 devices: {_SPREAD}",
    rf"2 devices, BatchNorm of each alone: {_SPREAD}",
    rf"efficiency 2: {_PERCENT} = {_NUMBER} \(seconds per step, 1 device / 2\)"
    # 8 images and 10 supports on one device, 8 and 5 on each of two.
    r" x 0.7222 \(FLOP of a device, 2 / 1\)",
    rf"batch norm 2: {_PERCENT}",
    last=rf"ratio: {_NUMBER}",
  )
  found = re.search(rf"2: ({_NUMBER})% = ({_NUMBER}) ", result.stdout)
  percent, of_seconds = map(float, found.groups())
  ratio = float(result.stdout.split()[-1])
  assert percent == pytest.approx(72.22 * of_seconds, rel=0.001, abs=0.1)
  assert ratio == pytest.approx(percent / 100, abs=0.01)


@pytest.mark.slow
def test_the_whole_path(tmp_path):
  arguments = ("--images=80", "--batch=4", "--steps=1", "--windows=1")
  result = _run("input.whole_path", f"--dir={tmp_path}/new", *arguments)
  of_files = rf"{_NUMBER} steps/s, {_NUMBER} images/s; {_SPREAD}"
  _check_lines(
    result,
    r"data: 80 JPEGs of \d+ kB; canvas 96, a step 4 images and 20 supports, "
    "small_resnet, views of 16",
    rf"bare pipeline: {of_files}",
    rf"whole path: {of_files}",
    rf"step alone: {of_files}",
    rf"input stall: {_PERCENT} of the whole path's time",
    rf"a step waits for images: median {_NUMBER} s, at most {_NUMBER}; .*",
    r"steps that wait longer than that: [01] of 1",
    r"memory: \d+ MiB at the start, \d+ in the middle, \d+ at the end",
    last=rf"ratio: {_NUMBER}",
  )


# Arguments, status and message of what each script refuses.
_REFUSED = {
  "step.scan": [
    ([], 2, "--config is missing: give a recipe"),
    (
      [*_RECIPE, "--steps_per_call=4,1"],
      2,
      "--steps_per_call=1: give numbers above 1, or 'epoch'",
    ),
    ([*_RECIPE, "--steps_per_call="], 2, "--steps_per_call is empty"),
    (
      [*_RECIPE, "--config.train.batch_size=1024", "--steps_per_call=4,epoch"],
      2,
      "--steps_per_call=epoch: an epoch has 1 step, which is the plain loop",
    ),
  ],
  "step.augment": [(["more"], 1, "unknown arguments: more")],
  "step.scaling": [
    ([*_RECIPE, "more"], 2, "unknown arguments: more"),
    (
      [*_RECIPE, "--devices=1,9"],
      2,
      "--devices=1,9: give numbers from 1 to 1, which is how many there are",
    ),
    ([*_RECIPE], 2, "1 device of 1 has nothing to be compared with"),
  ],
  "input.whole_path": [
    (["--dir=benchmarks", "--images=0"], 1, "flag --images=0"),
  ],
}


@pytest.mark.slow
@pytest.mark.parametrize("script", _REFUSED)
def test_bad_arguments_are_refused(script):
  cases = _REFUSED[script]
  commands = [arguments for arguments, _, _ in cases]
  results = forked.run(
    f"benchmarks.{script}", commands, JAX_NUM_CPU_DEVICES="1"
  )
  for result, (_, status, message) in zip(results, cases, strict=True):
    assert result.returncode == status
    assert message in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_numbers_of_devices_begin_with_one():
  result = _run("step.scaling", *_RECIPE, "--devices=2", num_devices=2)
  assert result.returncode == 2
  assert "--devices=2: 1 must be among them" in result.stderr


@pytest.mark.slow
def test_scaling_takes_all_cores_whatever_the_batch_of_each():
  # As many devices as the script makes of the cores.
  result = _run(
    "step.scaling", *_RECIPE, "--per_device=9", "--devices=1,99", num_devices=-1
  )
  assert result.returncode == 2
  most = min(cpu_devices.num_cores(), 8)
  assert f"--devices=1,99: give numbers from 1 to {most}, " in result.stderr


@pytest.mark.slow
def test_directories_of_too_little_or_something_else_are_refused(tmp_path):
  photographs.make(tmp_path / "few", 3)
  (tmp_path / "other").mkdir()
  (tmp_path / "other" / "picture.png").write_bytes(b"")
  few, other = forked.run(
    "benchmarks.input.whole_path",
    [
      [f"--dir={tmp_path}/few", "--batch=4"],
      [f"--dir={tmp_path}/other", "--images=1"],
    ],
  )
  assert few.returncode == other.returncode == 2
  assert "error: there are 3 JPEGs, but --batch=4" in few.stderr
  assert "80 are needed" in few.stderr
  assert f"error: --dir={tmp_path}/other has no JPEGs" in other.stderr
  # It is not filled.
  names = [path.name for path in (tmp_path / "other").iterdir()]
  assert names == ["picture.png"]


def _product():
  call = jax.jit(jnp.matmul)
  arguments = (np.ones((8, 16), "f4"), np.ones((16, 32), "f4"))
  return call, arguments, call.lower(*arguments).compile()


def test_costs_of_a_product():
  costs = accounting.costs(*_product())
  assert costs.flops == 2 * 8 * 16 * 32
  assert costs.traffic >= 4 * (8 * 16 + 16 * 32 + 8 * 32)
  # The result is there at the end beside what it was made of.
  assert costs.peak_memory >= 4 * (8 * 16 + 16 * 32 + 8 * 32)
  assert accounting.costs(*_product(), num_steps=4).flops == costs.flops / 4


def _described(monkeypatch, kind, costs, seconds, model_flops):
  device = types.SimpleNamespace(device_kind=kind)
  monkeypatch.setattr(accounting.jax, "devices", lambda: [device])
  return accounting.describe(costs, seconds, model_flops=model_flops)


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("NVIDIA L4", "l4"),
    ("NVIDIA A100-SXM4-80GB", "a100"),
    ("NVIDIA H100 80GB HBM3", "h100"),
    ("NVIDIA H200", "h200"),
    ("TPU v3", "v3"),
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5", "v5p"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
  ],
)
def test_shares_of_a_known_chip(monkeypatch, kind, name):
  chip = chips.CHIPS[name]
  costs = accounting.StepCosts(
    flops=chip.flops_per_second / 4,
    traffic=chip.memory_bandwidth / 2,
    peak_memory=0,
  )
  # Of the model part, less than the step does.
  model_flops = chip.flops_per_second / 5
  told = _described(monkeypatch, kind, costs, 1.0, model_flops)
  # Bound by its memory.
  assert told.endswith(
    f"; of the peaks of {name}: MFU 20.0% in bf16, 50.0% of the memory's "
    "bandwidth, 50.0% of the roofline"
  )


@pytest.mark.parametrize(
  "kind",
  [
    "cpu",
    "NVIDIA L40S",
    "NVIDIA A100-SXM4-40GB",
    "NVIDIA A100-PCIE-40GB",
    "NVIDIA A100 80GB PCIe",
    "NVIDIA H100 PCIe",
    "NVIDIA H100 NVL",
    "NVIDIA H200 NVL",
    "NVIDIA H200 MIG 1g.18gb",
    "NVIDIA GH200 480GB",
    "TPU v4 lite",
    "TPU7x",
  ],
)
def test_no_shares_of_an_unknown_device(monkeypatch, kind):
  costs = accounting.StepCosts(flops=2e9, traffic=3e9, peak_memory=2**20)
  assert _described(monkeypatch, kind, costs, 2.0, 2e9) == (
    "2 GFLOP, 3 GB to and from memory, peak memory 1 MiB; 1 GFLOP/s, 1.5 GB/s"
  )
