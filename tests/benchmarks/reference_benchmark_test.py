"""The script that makes reference curves out of finished runs."""

import json
import re

import pytest

from benchmarks import reference_curves as script
from paws_jax.monitoring import reference_curves
from paws_jax.runs import metrics
from paws_jax.runs import results


def make_run(path, seed, *, epochs=2, finished=True):
  path.mkdir()
  config = {
    "seed": seed,
    "train": {"epochs": epochs},
    "log": {"every_steps": 1 + seed},
  }
  (path / "config.json").write_text(json.dumps(config))
  (path / "environment.json").write_text('{"devices": ["cpu: cpu"]}')
  writer = metrics.Writer(path, first_step=0)
  for step in (1, 2, 3):
    writer.write(step, {"cross_entropy": 2 - 0.1 * step + 0.01 * seed})
  writer.close()
  if finished:
    results.append_result(path, {"top1": 0.9})
  return str(path)


@pytest.fixture
def runs(tmp_path):
  return [make_run(tmp_path / f"run{i}", i) for i in range(3)]


def test_the_file_can_be_read_again(runs, tmp_path, capsys):
  output = tmp_path / "curves"
  arguments = ["--recipe=tiny", f"--output={output}", *runs]
  assert script.main(arguments) == 0
  assert "3 runs" in capsys.readouterr().out
  found = reference_curves.read(output / "tiny.json")
  assert (found.name, found.num_runs) == ("tiny", 3)
  assert found.curves["cross_entropy"].steps.tolist() == [1, 2, 3]
  made = json.loads((output / "tiny.json").read_text())["made"]
  assert made["devices"] == ["cpu: cpu"]
  assert made["seeds"] == [[0, 0], [1, 0], [2, 0]]


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    ({"epochs": 3}, r"run3 and .*run0 differ in train\.epochs"),
    ({"finished": False}, r"run3 has no results\.json"),
  ],
)
def test_runs_that_do_not_belong_are_refused(
  runs, tmp_path, capsys, change, problem
):
  runs.append(make_run(tmp_path / "run3", 3, **change))
  assert script.main(["--recipe=tiny", f"--output={tmp_path}", *runs]) == 1
  assert re.search(problem, capsys.readouterr().err)
  assert not (tmp_path / "tiny.json").exists()


def test_a_directory_without_a_run_is_refused(tmp_path, capsys):
  assert script.main(["--recipe=tiny", str(tmp_path)]) == 1
  assert "holds no run: no config.json" in capsys.readouterr().err
