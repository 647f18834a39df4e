"""A run that is stopped and goes on with other processes and devices."""

import signal

import pytest

from paws_jax.runs import metrics
from paws_jax.runs import results
from tests import small_runs

pytestmark = pytest.mark.slow


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
  tmp_path, kind, before, after
):
  num_steps, epochs = {"memory": (20, 4), "disk": (21, 7)}[kind]
  if kind == "disk":
    data = small_runs.on_disk(small_runs.write_photos(tmp_path / "data"))
  else:
    data = small_runs.in_memory(small_runs.write_digits(tmp_path / "data"))
  every = small_runs.as_flags(data) | {
    "log__every_steps": 1,
    "train__epochs": epochs,
    "eval__every_steps": 0,
    "log__writers": "jsonl,tensorboard",
  }
  # A run without an interruption.
  [whole] = small_runs.run(
    tmp_path / "whole", num_processes=1, devices=1, **every
  )
  assert whole.status == 0, whole.err
  workdir = tmp_path / "stopped"
  with small_runs.start(
    workdir, num_processes=before[0], devices=before[1], **every
  ) as group:
    group.wait_for_output(0, f"step 1/{num_steps}", seconds=300)
    # Any process will do.
    group.send(before[0] - 1, signal.SIGTERM)
    ended = group.wait(seconds=120)
  assert {process.status for process in ended} == {0}, ended
  last = steps(workdir)[-1]
  assert 0 < last < num_steps
  assert f"stopped by SIGTERM at step {last} of {num_steps}" in ended[0].out
  resumed = small_runs.run(
    workdir, num_processes=after[0], devices=after[1], **every
  )
  assert {process.status for process in resumed} == {0}, resumed
  assert f"resuming from the checkpoint of step {last}" in resumed[0].out
  # Only process 0 speaks, and logs.
  assert len(list(workdir.glob("events.out.tfevents.*"))) == 2
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
