"""Runs of two processes that lose one, disagree or cannot start."""

import shutil
import signal

import pytest

from paws_jax.runs import checkpoint
from tests import processes
from tests import small_runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  return small_runs.write_photos(tmp_path_factory.mktemp("photos"))


def test_a_process_that_dies_takes_the_others_with_it(tmp_path):
  data = small_runs.in_memory(small_runs.write_digits(tmp_path / "data"))
  changes = small_runs.as_flags(data) | {
    "train__epochs": 1000,
    "log__every_steps": 1,
  }
  workdir = tmp_path / "run"
  with small_runs.start(
    workdir, num_processes=2, devices=1, **changes
  ) as group:
    group.wait_for_output(0, "soft-NN", seconds=300)
    group.send(1, signal.SIGKILL)
    survivor, killed = group.wait(seconds=60)
  assert killed.status == -signal.SIGKILL
  assert survivor.status == 1
  assert "error: process 1" in survivor.err
  assert "continues from the last checkpoint" in survivor.err
  # What it leaves can be gone on from.
  with checkpoint.Checkpointer(workdir / "checkpoints") as saved:
    assert saved.steps()[-1] >= 2


def test_an_image_that_one_process_cannot_read_stops_all(tmp_path, photos):
  root = tmp_path / "photos"
  shutil.copytree(photos, root)
  (root / "unlabelled" / "17.png").write_bytes(b"not an image")
  ended = small_runs.run(
    tmp_path / "run",
    num_processes=2,
    devices=1,
    **small_runs.as_flags(small_runs.on_disk(root)),
  )
  assert [process.status for process in ended] == [1, 1]
  assert sum("17.png" in process.err for process in ended) >= 1
  assert any("has ended with an error" in process.err for process in ended)


def test_other_recipes_on_other_hosts_are_refused_before_the_first_step(
  tmp_path,
):
  port = processes.free_port()
  commands = [
    [
      "-m",
      "paws_jax.main",
      *small_runs.arguments(tmp_path, train__batch_size=size),
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
  with (tmp_path / "paws_jax" / "errors.py").open("a") as file:
    file.write("# Changed on one machine only.\n")
  other = (
    f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); "
    "runpy.run_module('paws_jax.main', run_name='__main__', alter_sys=True)"
  )
  port = processes.free_port()
  commands = [
    [
      *start,
      *small_runs.arguments(tmp_path / "run"),
      *processes.flags(number, 2, port),
    ]
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
  ended = small_runs.run(tmp_path / "file", num_processes=2, devices=1)
  assert [process.status for process in ended] == [2, 2], ended
  assert f"--workdir={tmp_path}/file cannot be written" in ended[0].err
  assert "process 0: --workdir=" in ended[1].err


def test_nobody_there_is_said_when_the_time_is_up(tmp_path):
  command = [
    "-m",
    "paws_jax.main",
    *small_runs.arguments(tmp_path / "run"),
    *processes.flags(1, 2, processes.free_port()),
    "--startup_timeout=2",
  ]
  with processes.Group([command], devices=1, environ={}) as group:
    [alone] = group.wait(seconds=60)
  assert alone.status == 1
  assert "error: process 1 " in alone.err
  assert "Traceback" not in alone.err
  assert not (tmp_path / "run").exists()
