"""The same run on 1 x 1, 1 x 4 and 2 x 2 devices, by real processes."""

import json

import pytest

from tests import processes
from tests import small_runs

pytestmark = pytest.mark.slow

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
  return small_runs.write_photos(tmp_path_factory.mktemp("photos"))


def five_steps(changes, *, num_processes, devices):
  """The rows of every process."""
  changes = {
    k: tuple(v) if isinstance(v, list) else v for k, v in changes.items()
  }
  with processes.start_code(
    FIVE_STEPS,
    num_processes=num_processes,
    devices=devices,
    environ={"RECIPE": json.dumps(small_runs.SMALL | changes)},
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
  changes = small_runs.on_disk(photos) if kind == "disk" else {}
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
