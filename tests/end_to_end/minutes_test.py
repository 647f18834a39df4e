"""`train.minutes` on the command line, in one process and in several."""

import json

import pytest

from paws_jax.runs import metrics
from tests import small_runs

pytestmark = pytest.mark.slow


def test_all_processes_take_the_epochs_of_process_0(tmp_path):
  # An epoch of three quick steps.
  data = small_runs.on_disk(small_runs.write_photos(tmp_path / "data"))
  options = small_runs.as_flags(data)
  options |= {"train__minutes": 0.1, "eval__every_steps": 0}
  tmp_path = tmp_path / "run"
  ended = small_runs.run(tmp_path, num_processes=2, devices=1, **options)
  assert {process.status for process in ended} == {0}, ended
  assert "steps fit in 0.1 minutes" in ended[0].out
  stored = json.loads((tmp_path / "config.json").read_text())
  assert stored["train"]["minutes"] == 0
  num_steps = 3 * stored["train"]["epochs"]
  assert num_steps == 3 * stored["laid_out"]["epochs"] > 0
  rows = metrics.read(tmp_path / metrics.METRICS)
  assert max(row["step"] for row in rows) == num_steps
  # On another number of processes the epochs are those that were found.
  [again] = small_runs.run(tmp_path, num_processes=1, devices=1, **options)
  assert again.status == 0, again.err
  assert f"this run is finished ({num_steps} steps)" in again.out
  assert "timing a few steps" not in again.out
