"""Runs of several real processes, each with CPU devices of its own.

The same run on 1 x 1, 1 x 4 and 2 x 2 devices; and one that is asked to stop,
loses a process, or is given two different recipes.
"""

import json
import pathlib
import shutil
import signal

import numpy as np
import pytest
from PIL import Image

from paws_jax.runs import checkpoint
from paws_jax.runs import metrics
from paws_jax.runs import results
from tests import processes
from tests import tiny_recipe

pytestmark = pytest.mark.slow

# Gentle, so that rounding stays rounding: at ten times this rate a loss of step
# 20 differs by 0.03 between one device and four.
SMALL = {
  "model.name": "small_resnet",
  "model.output_dim": 8,
  "optim.name": "sgd",
  "optim.start_lr": 1e-4,
  "optim.peak_lr": 1e-4,
  "optim.final_lr": 1e-4,
}
NUM_STEPS = 5

# Trains, and prints the sample ids and the loss of every step.
FIVE_STEPS = f"""
import json, os, sys
import jax
import numpy as np
from tests import tiny_recipe
from paws_jax.distributed import launch as launch_lib
from paws_jax.distributed import lifecycle
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.training import experiment
from paws_jax.training import step as step_lib

number, count, port = map(int, sys.argv[1:])
launch = None
if count > 1:
  launch = launch_lib.Launch(f"localhost:{{port}}", count, number, "test")
lifecycle.initialize(launch)
config = tiny_recipe.get_config()
config.update_from_flattened_dict(json.loads(os.environ["RECIPE"]))
parts = experiment.create(config)
pipeline, whole = parts.pipeline, mesh_lib.replicated(parts.trainer.mesh)

def ids(inputs, step):
  batch = pipeline.batch(inputs, step)
  return batch.unlabelled.id, batch.support.id

ids = jax.jit(ids, out_shardings=whole)
call = step_lib.make_train_call(parts.trainer, pipeline, 1)
state = parts.initial_state()
for step in range({NUM_STEPS}):
  inputs = pipeline.inputs(step, 1)
  unlabelled, support = ids(inputs, step)
  state, values = call(state, inputs)
  row = {{name: float(values[name][0]) for name in ("loss", "grad_norm")}}
  row["unlabelled"] = np.asarray(unlabelled).tolist()
  row["support"] = np.asarray(support).tolist()
  print("ROW", json.dumps(row), flush=True)
pipeline.close()
lifecycle.barrier("end")
"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  """A folder of two classes, and unlabelled images beside it."""
  root = tmp_path_factory.mktemp("photos")
  rng = np.random.default_rng(0)
  places = ["labelled/a", "labelled/b"] * 3 + ["unlabelled"] * 42
  for i, place in enumerate(places):
    path = root / place / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = rng.integers(0, 256, (20 + i % 3, 24, 3), np.uint8)
    Image.fromarray(pixels).save(path)
  return root


def on_disk(root):
  """What makes the small recipe one of images on disk."""
  return {
    "data.source": "folder",
    "data.pipeline": "host",
    "data.dir": str(root / "labelled"),
    "data.unlabelled_dir": "../unlabelled",
    "data.labels_per_class": 0,
    "data.canvas_size": 24,
    "support.classes_per_step": 2,
    "support.images_per_class": 3,
    "views.mean": [0.5] * 3,
    "views.std": [0.25] * 3,
    "train.batch_size": 16,
  }


def five_steps(changes, *, num_processes, devices):
  """The rows of every process."""
  changes = {
    k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()
  }
  with processes.start_code(
    FIVE_STEPS,
    num_processes=num_processes,
    devices=devices,
    environ={"RECIPE": json.dumps(SMALL | changes)},
  ) as group:
    ended = group.wait(seconds=400)
  for process in ended:
    assert process.status == 0, process.err
  return [
    [
      json.loads(line.removeprefix("ROW "))
      for line in process.out.splitlines()
      if line.startswith("ROW ")
    ]
    for process in ended
  ]


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_the_same_run_on_one_device_on_four_and_on_two_processes(kind, photos):
  # 10 supports on 4 devices are padded; 6 on disk, too.
  changes = on_disk(photos) if kind == "disk" else {}
  [alone] = five_steps(changes, num_processes=1, devices=1)
  [four] = five_steps(changes, num_processes=1, devices=4)
  first, second = five_steps(changes, num_processes=2, devices=2)
  assert first == second
  assert len(alone) == NUM_STEPS
  assert len({tuple(row["unlabelled"]) for row in alone}) == NUM_STEPS
  num_supports = len(alone[0]["support"])
  for rows in (four, first):
    for row, expected in zip(rows, alone, strict=True):
      assert row["unlabelled"] == expected["unlabelled"]
      assert row["support"][:num_supports] == expected["support"]
      assert len(row["support"]) == -(-num_supports // 4) * 4
      assert row["loss"] == pytest.approx(expected["loss"], abs=1e-4)
      assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-2)


def arguments(workdir, **changes):
  changes = SMALL | {k.replace("__", "."): v for k, v in changes.items()}
  return [
    f"--config={pathlib.Path(tiny_recipe.__file__)}",
    f"--workdir={workdir}",
    *(f"--config.{name}={value}" for name, value in changes.items()),
  ]


def run(workdir, *, num_processes, devices, seconds=400, **changes):
  with processes.start_main(
    arguments(workdir, **changes), num_processes=num_processes, devices=devices
  ) as group:
    return group.wait(seconds=seconds)


def losses(workdir):
  rows = metrics.read(workdir / metrics.METRICS)
  return {row["step"]: row["loss"] for row in rows if "loss" in row}


def steps(workdir):
  names = [path.name for path in (workdir / "checkpoints").iterdir()]
  return sorted(int(name) for name in names if name.isdigit())


@pytest.mark.parametrize(
  ("kind", "before", "after"),
  [("memory", (2, 2), (1, 1)), ("disk", (1, 1), (2, 2))],
)
def test_asked_to_stop_and_resumed_on_another_number_of_devices(
  tmp_path, photos, kind, before, after
):
  num_steps, epochs = {"memory": (20, 4), "disk": (21, 7)}[kind]
  every = {name.replace(".", "__"): value for name, value in SMALL.items()}
  every |= {
    "log__every_steps": 1,
    "train__epochs": epochs,
    "eval__every_steps": 0,
  }
  if kind == "disk":
    every |= on_disk_flags(photos)
  # A run without an interruption.
  [whole] = run(tmp_path / "whole", num_processes=1, devices=1, **every)
  assert whole.status == 0, whole.err
  workdir = tmp_path / "stopped"
  with processes.start_main(
    arguments(workdir, **every), num_processes=before[0], devices=before[1]
  ) as group:
    group.wait_for_output(0, f"step 1/{num_steps}", seconds=300)
    # Any process will do.
    group.send(before[0] - 1, signal.SIGTERM)
    ended = group.wait(seconds=120)
  assert {process.status for process in ended} == {0}, ended
  last = steps(workdir)[-1]
  assert 0 < last < num_steps
  assert f"stopped by SIGTERM at step {last} of {num_steps}" in ended[0].out
  resumed = run(workdir, num_processes=after[0], devices=after[1], **every)
  assert {process.status for process in resumed} == {0}, resumed
  assert f"resuming from the checkpoint of step {last}" in resumed[0].out
  # Only process 0 speaks.
  for other in (*ended[1:], *resumed[1:]):
    assert "step" not in other.out
  expected, found = losses(tmp_path / "whole"), losses(workdir)
  assert found.keys() == expected.keys() == set(range(1, num_steps + 1))
  for step, loss in expected.items():
    assert found[step] == pytest.approx(loss, abs=1e-4), step
  [before] = results.read_results(tmp_path / "whole")
  [after] = results.read_results(workdir)
  accuracy = "leave_one_out_top1" if kind == "disk" else "top1"
  # Of six labelled images one more or less.
  error = 0.17 if kind == "disk" else 0.01
  assert after[accuracy] == pytest.approx(before[accuracy], abs=error)
  assert after["split_hash"] == before["split_hash"]


def test_a_process_that_dies_takes_the_others_with_it(tmp_path):
  with processes.start_main(
    arguments(tmp_path, train__epochs=1000, log__every_steps=1),
    num_processes=2,
    devices=1,
  ) as group:
    group.wait_for_output(0, "soft-NN", seconds=300)
    group.send(1, signal.SIGKILL)
    survivor, killed = group.wait(seconds=60)
  assert killed.status == -signal.SIGKILL
  assert survivor.status == 1
  assert "error: process 1" in survivor.err
  assert "goes on from the last checkpoint" in survivor.err
  # What it leaves can be gone on from.
  with checkpoint.Checkpointer(tmp_path / "checkpoints") as saved:
    assert saved.steps()[-1] >= 2


def test_an_image_that_one_process_cannot_read_stops_all(tmp_path, photos):
  root = tmp_path / "photos"
  shutil.copytree(photos, root)
  (root / "unlabelled" / "17.png").write_bytes(b"not an image")
  ended = run(
    tmp_path / "run", num_processes=2, devices=1, **on_disk_flags(root)
  )
  assert [process.status for process in ended] == [1, 1]
  assert sum("17.png" in process.err for process in ended) >= 1
  assert any("has ended with an error" in process.err for process in ended)


def on_disk_flags(root):
  changes = on_disk(root)
  return {k.replace(".", "__"): _flag(v) for k, v in changes.items()}


def _flag(value):
  return str(tuple(value)) if isinstance(value, list) else value


def test_other_recipes_on_other_hosts_are_refused_before_the_first_step(
  tmp_path,
):
  port = processes.free_port()
  commands = [
    [
      "-m",
      "paws_jax.main",
      *arguments(tmp_path, train__batch_size=size),
      *processes.flags(number, 2, port),
    ]
    for number, size in enumerate((256, 128))
  ]
  with processes.Group(commands, devices=1, environ={}) as group:
    ended = group.wait(seconds=120)
  assert [process.status for process in ended] == [2, 2]
  for process in ended:
    assert (
      "train.batch_size is 256 on process 0, 128 on process 1" in process.err
    )
    assert "Traceback" not in process.err
  assert not list(tmp_path.iterdir())


def test_other_code_on_another_host_is_refused(tmp_path):
  shutil.copytree(processes.ROOT / "paws_jax", tmp_path / "paws_jax")
  with (tmp_path / "paws_jax" / "optim.py").open("a") as file:
    file.write("# Changed on one machine only.\n")
  other = (
    f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); "
    "runpy.run_module('paws_jax.main', run_name='__main__', alter_sys=True)"
  )
  port = processes.free_port()
  commands = [
    [*start, *arguments(tmp_path / "run"), *processes.flags(number, 2, port)]
    for number, start in enumerate((["-m", "paws_jax.main"], ["-c", other]))
  ]
  with processes.Group(commands, devices=1, environ={}) as group:
    ended = group.wait(seconds=120)
  assert [process.status for process in ended] == [2, 2], ended
  for process in ended:
    assert "the processes do not agree: code is " in process.err
  assert not (tmp_path / "run").exists()


def test_a_directory_that_process_0_cannot_use_is_told_by_all(tmp_path):
  (tmp_path / "file").write_text("in the way")
  ended = run(tmp_path / "file", num_processes=2, devices=1)
  assert [process.status for process in ended] == [2, 2], ended
  assert f"--workdir={tmp_path}/file cannot be written" in ended[0].err
  assert "process 0: --workdir=" in ended[1].err


def test_nobody_there_is_said_when_the_time_is_up(tmp_path):
  command = [
    "-m",
    "paws_jax.main",
    *arguments(tmp_path / "run"),
    *processes.flags(1, 2, processes.free_port()),
    "--startup_timeout=2",
  ]
  with processes.Group([command], devices=1, environ={}) as group:
    [alone] = group.wait(seconds=60)
  assert alone.status == 1
  assert "error: process 1 " in alone.err
  assert "Traceback" not in alone.err
  assert not (tmp_path / "run").exists()
