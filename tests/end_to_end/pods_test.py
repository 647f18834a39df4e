"""The same run on 1 x 1, 1 x 4 and 2 x 2 devices, by real processes."""

import collections
import json

import pytest

from tests import processes
from tests import quick_compile
from tests import small_runs

pytestmark = pytest.mark.slow

NUM_STEPS = 5


# Trains by each recipe on each number of devices, and prints the sample ids and
# the loss of every step.
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

def train(kind, changes, num_devices):
  config = tiny_recipe.get_config()
  config.update_from_flattened_dict(changes)
  parts = experiment.create(config, devices=jax.devices()[:num_devices])
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
    row["of"] = [kind, num_devices]
    print("ROW", json.dumps(row), flush=True)
  pipeline.close()

for kind, changes in json.loads(os.environ["RECIPES"]).items():
  for num_devices in json.loads(os.environ["DEVICES"]):
    train(kind, changes, num_devices)
lifecycle.barrier("end")
"""


def five_steps(recipes, *, num_processes, devices):
  """The rows of every process: {(kind, number of devices): rows}.

  Runs of one process are made on each of the numbers of devices.
  """
  recipes = {
    kind: small_runs.SMALL
    | {k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()}
    for kind, changes in recipes.items()
  }
  numbers = [num_processes * max(devices)] if num_processes > 1 else devices
  with processes.start_code(
    FIVE_STEPS,
    num_processes=num_processes,
    devices=max(devices),
    environ={
      "RECIPES": json.dumps(recipes),
      "DEVICES": json.dumps(numbers),
    }
    | quick_compile.ENVIRON,
  ) as group:
    ended = group.wait(seconds=600)
  rows = []
  for process in ended:
    assert process.status == 0, process.err
    rows.append(collections.defaultdict(list))
    for line in process.out.splitlines():
      if line.startswith("ROW "):
        row = json.loads(line.removeprefix("ROW "))
        rows[-1][tuple(row.pop("of"))].append(row)
  return rows


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Rows of one process, and of both of two; all start once."""
  path = tmp_path_factory.mktemp("data")
  disk = small_runs.on_disk(small_runs.write_photos(path / "photos"))
  recipes = {
    "memory": small_runs.in_memory(small_runs.write_digits(path / "digits")),
    "disk": disk,
    "host crops": disk | {"views.crop_on": "host"},
  }
  [one] = five_steps(recipes, num_processes=1, devices=[1, 4])
  return one, *five_steps(recipes, num_processes=2, devices=[2])


@pytest.mark.parametrize("kind", ["memory", "disk", "host crops"])
def test_the_same_run_on_one_device_on_four_and_on_two_processes(kind, runs):
  # 10 supports on 4 devices are padded; 6 on disk, too.
  one, *both = runs
  alone, four = one[kind, 1], one[kind, 4]
  first, second = (rows[kind, 4] for rows in both)
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
