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
from PIL import Image

from benchmarks import accounting
from benchmarks import photographs
from benchmarks import synthetic
from benchmarks import timing
from paws_jax import chips
from tests import tiny_recipe

_ROOT = pathlib.Path(__file__).parent.parent
_NUMBER = r"-?[0-9.]+(?:e[+-]?[0-9]+)?"
_PERCENT = r"-?[0-9.]+%"
_SPREAD = rf"seconds per step {_NUMBER}, windows {_NUMBER} to {_NUMBER}"
_RECIPE = (
  "--config=tests/tiny_recipe.py",
  "--config.model.name=small_resnet",
  "--config.train.batch_size=8",
  "--windows=1",
)
# Runs a script with another step, which takes half a minute less to compile.
_DRIVER = """
import runpy
import sys

import jax.numpy as jnp

from paws_jax import train


def step(trainer, state, batch):
  loss = jnp.mean(batch.unlabelled.image, dtype=float)
  metrics = dict.fromkeys(("loss", "grad_norm", "update_norm"), loss)
  return state.replace(step=state.step + 1), metrics


train.train_step = step
sys.argv = sys.argv[1:]
sys.path.insert(0, "benchmarks")
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def _run(script, *arguments, num_devices=1):
  return subprocess.run(
    [sys.executable, "-c", _DRIVER, f"benchmarks/{script}.py", *arguments],
    cwd=_ROOT,
    env={
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "JAX_NUM_CPU_DEVICES": str(num_devices),
      "PYTHONPATH": str(_ROOT),
      # Compiled in half the time.
      "XLA_FLAGS": "--xla_backend_optimization_level=0",
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
  result = _run("scan", *_RECIPE, "--steps_per_call=2", "--steps=1")
  _check_lines(
    result,
    "data: digits",
    rf"compile: plain loop {_NUMBER} s, kept on disk {_NUMBER} s",
    rf"compile: scan of 2 {_NUMBER} s, kept on disk {_NUMBER} s",
    rf"plain loop: {_SPREAD}",
    rf"scan of 2: {_SPREAD}",
    "choose: [12]",
    last=rf"ratio: {_NUMBER}",
  )


@pytest.mark.slow
def test_augmentation():
  result = _run("augment", "--side=8", "--batch=2", "--windows=1")
  names = ("crop", "brightness", "contrast", "saturation", "hue")
  names += ("greyscale", "blur", "solarize", "equalize")
  alternatives = ("blur, banded matrices", "blur, depthwise convolution")
  alternatives += ("equalize, comparisons", "equalize, counting")
  _check_lines(
    result,
    *(rf"{name}: {_NUMBER} us, Pillow {_NUMBER} us" for name in names),
    *(rf"{name}: {_NUMBER} us" for name in alternatives),
    rf"a large crop in one program: {_NUMBER} us; the operations alone, .*",
    rf"crop in precision HIGHEST: {_NUMBER} us, 0 levels off at most",
    rf"crop in precision DEFAULT: {_NUMBER} us, {_NUMBER} levels off at most",
    "gathers and scatters for a TPU: 0",
    last=rf"ratio: {_NUMBER}",
  )


@pytest.mark.slow
def test_scaling():
  arguments = ("--per_device=8", "--steps=1", "--warmup=0")
  result = _run("scaling", *_RECIPE, *arguments, num_devices=2)
  _check_lines(
    result,
    rf"1 device: {_SPREAD}",
    rf"2 devices: {_SPREAD}",
    rf"2 devices, BatchNorm of each alone: {_SPREAD}",
    rf"efficiency 2: {_PERCENT}",
    rf"batch norm 2: {_PERCENT}",
    last=rf"ratio: {_NUMBER}",
  )


@pytest.mark.slow
def test_the_whole_path(tmp_path):
  arguments = ("--images=80", "--batch=4", "--steps=1", "--windows=1")
  result = _run("whole_path", f"--dir={tmp_path}/new", *arguments)
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


@pytest.mark.slow
@pytest.mark.parametrize(
  ("script", "arguments", "status", "message"),
  [
    ("scan", [], 1, "give a recipe with --config"),
    (
      "scan",
      [*_RECIPE, "--steps_per_call=4,1"],
      2,
      "--steps_per_call=1: give numbers above 1, or 'epoch'",
    ),
    ("scan", [*_RECIPE, "--steps_per_call="], 2, "--steps_per_call is empty"),
    ("augment", ["more"], 1, "unknown arguments: more"),
    ("scaling", [*_RECIPE, "more"], 1, "give a recipe with --config, and"),
    (
      "scaling",
      [*_RECIPE, "--devices=1,9"],
      2,
      "--devices=1,9: give numbers from 1 to 1, which is how many there are",
    ),
    (
      "whole_path",
      ["--dir=benchmarks", "--images=0"],
      1,
      "flag --images=0",
    ),
  ],
)
def test_bad_arguments_are_refused(script, arguments, status, message):
  result = _run(script, *arguments)
  assert result.returncode == status
  assert message in result.stdout + result.stderr
  assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_numbers_of_devices_begin_with_one():
  result = _run("scaling", *_RECIPE, "--devices=2", num_devices=2)
  assert result.returncode == 2
  assert "--devices=2: 1 must be among them" in result.stderr


@pytest.mark.slow
def test_too_few_photographs_are_refused(tmp_path):
  photographs.make(tmp_path, 3)
  result = _run("whole_path", f"--dir={tmp_path}", "--batch=4")
  assert result.returncode == 2
  assert "error: there are 3 JPEGs, but --batch=4" in result.stderr
  assert "80 are needed" in result.stderr


def test_photographs_are_the_same_each_time(tmp_path):
  photographs.make(tmp_path / "a", 3)
  photographs.make(tmp_path / "b", 3)
  contents = [
    [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
    for name in "ab"
  ]
  assert contents[0] == contents[1]
  assert len(set(contents[0])) == 3
  # Like those of ImageNet.
  assert 60e3 < np.mean([len(content) for content in contents[0]]) < 140e3
  assert Image.open(tmp_path / "a" / "00002.jpg").size == (500, 375)


def test_sides_take_turns(monkeypatch):
  clock = [0.0]
  monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
  calls = []

  def side(name, seconds, at_least):
    def run(num_steps):
      taken = max(num_steps, at_least)
      calls.append((name, num_steps))
      clock[0] += seconds * taken
      return taken

    return run

  sides = {"a": side("a", 0.5, 1), "b": side("b", 2.0, 4)}
  found = timing.in_turns(sides, windows=2, steps=3, warmup=1)
  assert calls == [("a", 1), ("b", 1), *[("a", 3), ("b", 3)] * 2]
  # By the steps that were taken, not by those asked for.
  assert found == {"a": [0.5, 0.5], "b": [2.0, 2.0]}
  assert timing.ratio(found["a"], found["b"]) == 4.0
  without = timing.in_turns(sides, windows=1, steps=3, warmup=0)
  assert calls[-2:] == [("a", 3), ("b", 3)]
  assert without == {"a": [0.5], "b": [2.0]}


def test_spread():
  spread = timing.spread([0.4, 0.1, 0.2])
  assert spread == "seconds per step 0.2, windows 0.1 to 0.4"


def test_compiling_leaves_the_cache_where_it_was(capsys):
  before = jax.config.jax_compilation_cache_dir
  program = timing.compiled("double", jax.jit(lambda x: 2 * x), np.ones(2))
  np.testing.assert_array_equal(program(np.ones(2)), [2.0, 2.0])
  assert jax.config.jax_compilation_cache_dir == before
  line = rf"compile: double {_NUMBER} s, kept on disk {_NUMBER} s\n"
  assert re.fullmatch(line, capsys.readouterr().out)


def _product():
  call = jax.jit(jnp.matmul)
  arguments = (np.ones((8, 16), "f4"), np.ones((16, 32), "f4"))
  return call, arguments, call.lower(*arguments).compile()


def test_costs_of_a_product():
  costs = accounting.costs(*_product())
  assert costs.flops == 2 * 8 * 16 * 32
  assert costs.traffic >= 4 * (8 * 16 + 16 * 32 + 8 * 32)
  assert costs.memory >= 4 * (8 * 16 + 16 * 32)
  assert accounting.costs(*_product(), num_steps=4).flops == costs.flops / 4


@pytest.mark.parametrize(
  ("kind", "name"),
  [
    ("NVIDIA H200", "h200"),
    ("NVIDIA A100-SXM4-80GB", "a100"),
    ("TPU v4", "v4"),
    ("TPU v5 lite", "v5e"),
    ("TPU v5p", "v5p"),
    ("TPU v6 lite", "v6e"),
  ],
)
def test_shares_of_a_known_chip(monkeypatch, kind, name):
  device = types.SimpleNamespace(device_kind=kind)
  monkeypatch.setattr(accounting.jax, "devices", lambda: [device])
  chip = chips.CHIPS[name]
  costs = accounting.Costs(
    flops=chip.flops_per_second / 4, traffic=chip.memory_bandwidth / 2, memory=0
  )
  told = accounting.describe(costs, 1.0)
  assert "MFU 25.0% of the bf16 peak, 50.0% of the memory's bandwidth" in told
  # Bound by its memory.
  assert told.endswith("50.0% of the roofline")


def test_no_shares_of_an_unknown_device():
  costs = accounting.Costs(flops=2e9, traffic=3e9, memory=2**20)
  assert accounting.describe(costs, 2.0) == (
    "2 GFLOP, 3 GB to and from memory, 1 MiB of it; 1 GFLOP/s, 1.5 GB/s"
  )


def _recipe(**changes):
  config = tiny_recipe.get_config()
  config.model.name = "small_resnet"
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


def test_a_recipes_own_images_are_taken():
  assert synthetic.experiment(_recipe()).dataset.name == "digits"
  found = synthetic.experiment(_recipe(), always_random=True)
  assert found.dataset.name == "random"


def test_random_images_where_there_are_none(capsys, tmp_path):
  config = _recipe(data__source="idx", data__dir=str(tmp_path / "away"))
  found = synthetic.experiment(config, devices=jax.devices()[:2])
  assert found.dataset.name == "random"
  assert "data are not at hand (" in capsys.readouterr().out
  assert found.trainer.mesh.size == 2
  image = found.pipeline.input_shapes(1).images
  assert image.shape == (256, 8, 8, 1)


def test_images_of_the_host_pipeline_become_random_ones():
  config = _recipe(
    data__source="folder",
    data__pipeline="host",
    data__canvas_size=24,
    data__labels_per_class=0,
    views__mean=(0.5,) * 3,
    views__std=(0.2,) * 3,
    support__classes_per_step=0,
    train__batch_size=16,
  )
  found = synthetic.experiment(config, devices=jax.devices()[:2])
  assert found.dataset.name == "random"
  assert found.dataset.num_classes == 10
  assert found.pipeline.input_shapes(1).images.shape == (32, 24, 24, 3)
