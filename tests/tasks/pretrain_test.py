"""Whole runs of a tiny recipe: results, resuming, signals, failures."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from matplotlib import image

from paws_jax import config as config_lib
from paws_jax.classifier import classifier
from paws_jax.runs import metrics
from paws_jax.runs import out_of_memory
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import pretrain
from tests import processes
from tests import quick_compile

ROOT = pathlib.Path(__file__).parents[2]
RECIPE = ROOT / "tests" / "tiny_recipe.py"
STEPS = 10

# Runs `main` in a process in which what the run must not need cannot be
# imported, and which sends itself a signal when told so: at the compilation, or
# when the metrics of a step arrive; or whose parameters become NaN at a step;
# or which runs out of disk.
DRIVER = """
import os, resource, sys
for name in ("tensorflow", "tensorflow_datasets", "clu"):
  sys.modules[name] = None
import jax
from absl import app
from paws_jax import main
from paws_jax.cli import flags as command_line
from paws_jax.training import run as training_run

number, where = int(sys.argv[1]), sys.argv[2]
del sys.argv[1:3]
process = training_run.TrainingRun
before = {"_log": process._log, "_compile": process._compile}

def log(self, step, values):
  before["_log"](self, step, values)
  if str(step) == where:
    os.kill(os.getpid(), number)

def compile(self, call):
  if where == "compile":
    os.kill(os.getpid(), number)
  if where == "poison":
    compiled = before["_compile"](self, call)
    def poisoned(state, inputs):
      if int(state.step) == number:
        nan = lambda x: x * jax.numpy.nan
        state = state.replace(params=jax.tree.map(nan, state.params))
      return compiled(state, inputs)
    return poisoned
  if where == "limit":
    # Files cannot grow beyond this many bytes: a stand-in for a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
  return before["_compile"](self, call)

process._log, process._compile = log, compile
app.run(main.main, flags_parser=command_line.parse_flags)
"""


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
  """Runs the tiny recipe in a process of its own."""
  home = tmp_path_factory.mktemp("home")
  # Programs are the same every time, however quickly they are compiled.
  environment = {
    "PATH": os.defpath,
    "HOME": str(home),
    "JAX_PLATFORMS": "cpu",
    **processes.compilation_cache(),
    **quick_compile.ENVIRON,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
  }
  warnings = (
    "error::DeprecationWarning",
    # ml_collections' way to load a recipe.
    "ignore:the load_module() method:DeprecationWarning",
  )

  def launch(workdir, *args, at=(0, ""), **options):
    number, where = at
    return subprocess.run(
      [
        sys.executable,
        *[word for warning in warnings for word in ("-W", warning)],
        *("-c", DRIVER, str(int(number)), str(where)),
        f"--config={RECIPE}",
        f"--workdir={workdir}",
        "--config.model.name=small_resnet",
        *args,
      ],
      **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options,
      cwd=ROOT,
      env=environment,
      text=True,
      timeout=900,
      check=False,
    )

  return launch


@pytest.fixture(scope="module")
def whole(launch, tmp_path_factory):
  """Workdir and output of a run that nothing disturbed."""
  workdir = tmp_path_factory.mktemp("whole") / "deep" / "run"
  result = launch(workdir, "--config.log.next_command=echo more")
  assert result.returncode == 0, result.stderr
  return workdir, result


def stored(workdir, step):
  """What the checkpoint of a step says: {"arrays": ..., "meta": ...}."""
  path = workdir / workdir_lib.CHECKPOINTS / str(step) / "meta" / "metadata"
  return json.loads(json.loads(path.read_text())["text"])


def steps(workdir):
  directory = workdir / workdir_lib.CHECKPOINTS
  return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


def rows(workdir):
  """Metrics without what depends on the time of day."""
  return [
    {k: v for k, v in row.items() if k != "steps_per_second"}
    for row in metrics.read(workdir / metrics.METRICS)
  ]


def accuracies(workdir):
  (row,) = results.read_results(workdir)
  return {k: v for k, v in row.items() if "second" not in k}


def assert_same_run(workdir, whole):
  """Final arrays bit by bit, metrics and results."""
  assert stored(workdir, STEPS)["arrays"] == stored(whole, STEPS)["arrays"]
  assert rows(workdir) == rows(whole)
  assert accuracies(workdir) == accuracies(whole)


@pytest.mark.slow
def test_a_whole_run_leaves_everything(whole):
  workdir, _ = whole
  assert {path.name for path in workdir.iterdir()} == {
    ".lock",
    "checkpoints",
    "classifier",
    "config.json",
    "environment.json",
    "metrics.jsonl",
    "results.json",
    "split.json",
    "training.png",
  }
  assert steps(workdir) == [8, 10]
  assert image.imread(workdir / "training.png")[..., :3].min() < 0.5
  names = ("step", "loss", "cross_entropy", "grad_norm", "learning_rate")
  losses = [row for row in rows(workdir) if "loss" in row]
  assert [row["step"] for row in losses] == [3, 6, 9]
  assert all(set(names) <= set(row) for row in losses)
  evaluations = [row for row in rows(workdir) if "soft_nn_top1" in row]
  assert [row["step"] for row in evaluations] == [5, 10]
  # The labels of digits are known, and all but twenty are hidden.
  assert all(0 < row["pseudo_label_accuracy"] < 1 for row in evaluations)


@pytest.mark.slow
def test_what_is_unhealthy_is_said_in_the_log_and_kept(whole):
  workdir, result = whole
  # Two labels a class and ten steps.
  found = [row for row in rows(workdir) if "finding" in row]
  assert [row["finding"] for row in found] == [
    "label shortage",
    "below raw pixels",
  ]
  assert {row["event"] for row in found} == {"starts"}
  assert result.stdout.count("! label shortage (step 10): target") == 1
  assert result.stdout.count("! below raw pixels (step 10): of the test") == 1


@pytest.mark.slow
def test_a_finished_run_is_compared_with_another(whole, launch, tmp_path):
  workdir, _ = whole
  copy = tmp_path / "run"
  shutil.copytree(workdir, copy)
  result = launch(copy, f"--compare_to={workdir}")
  assert result.returncode == 0, result.stderr
  assert f"at step 10, compared with {workdir}: cross_entropy" in result.stdout
  assert "another recipe" not in result.stdout
  drawn = image.imread(copy / "training.png")
  assert np.any(drawn != image.imread(workdir / "training.png"))


@pytest.mark.slow
def test_the_result_says_what_was_measured(whole):
  workdir, _ = whole
  (row,) = results.read_results(workdir)
  expected = {
    "task": "pretrain",
    "protocol": "soft_nn",
    "method": "paws",
    "dataset": "digits",
    "split_seed": 0,
    "seed": 0,
    "num_labels": 20,
    "num_test": 360,
    "steps": STEPS,
  }
  assert {k: row[k] for k in expected} == expected
  assert 0 < row["top1"] <= row["top5"] <= 1
  low, high = row["top1_interval"]
  assert low < row["top1"] < high
  # Pixels alone are far better than chance on digits.
  assert row["raw_pixel_top1"] > 0.4
  evaluated = [r for r in rows(workdir) if "soft_nn_top1" in r]
  assert row["top1"] == evaluated[-1]["soft_nn_top1"]
  split = json.loads((workdir / "split.json").read_text())
  assert row["split_hash"] == split["hash"]
  assert 0 < row["compile_seconds"] < row["wall_seconds"]
  assert row["steps_per_second"] > 0


@pytest.mark.slow
def test_the_output_reads_well_in_a_log_file(whole):
  workdir, result = whole
  assert result.stderr == ""
  text = result.stdout
  assert "\r" not in text
  assert max(map(len, text.splitlines())) < 200
  (row,) = results.read_results(workdir)
  assert pretrain.table(row) in text
  assert text.endswith(f"{workdir / 'classifier'}\n\nnext, try   echo more\n")
  assert re.search(r"step 9/10  \d+ img/s  ETA 0:0\d  cross-entropy", text)


@pytest.mark.slow
def test_a_finished_run_shows_its_table_again(whole, launch):
  workdir, first = whole
  names = ("results.json", "metrics.jsonl", "training.png")
  before = [(workdir / name).read_bytes() for name in names]
  again = launch(workdir, "--config.log.next_command=echo more")
  assert again.returncode == 0
  assert again.stderr == ""
  assert "this run is finished (10 steps)" in again.stdout
  table = first.stdout[first.stdout.index("digits: 20 labels") :]
  assert again.stdout.endswith(table)
  assert [(workdir / name).read_bytes() for name in names] == before


@pytest.mark.slow
def test_a_finished_run_makes_what_was_lost_again(whole, launch, tmp_path):
  copy = tmp_path / "run"
  shutil.copytree(whole[0], copy)
  (copy / "training.png").unlink()
  shutil.rmtree(copy / "classifier")
  result = launch(copy)
  assert result.returncode == 0, result.stderr
  first, again = (
    classifier.Classifier.load(path / "classifier") for path in (whole[0], copy)
  )
  assert again.digest == first.digest
  assert "this run is finished" in result.stdout
  drawn = image.imread(copy / "training.png")
  np.testing.assert_array_equal(drawn, image.imread(whole[0] / "training.png"))


@pytest.mark.slow
def test_killed_then_damaged_then_resumed_is_the_same_run(
  whole, launch, tmp_path
):
  killed = launch(tmp_path, at=(signal.SIGKILL, 7))
  assert killed.returncode == -signal.SIGKILL
  assert steps(tmp_path)[-1] < STEPS
  newest, before = steps(tmp_path)[-1], steps(tmp_path)[-2]
  files = (tmp_path / workdir_lib.CHECKPOINTS / str(newest)).rglob("*")
  largest = max(files, key=lambda path: path.stat().st_size)
  data = bytearray(largest.read_bytes())
  data[len(data) // 2] ^= 1
  largest.write_bytes(bytes(data))
  with (tmp_path / metrics.METRICS).open("a") as file:
    file.write('{"step": 8, "lo')
  resumed = launch(tmp_path)
  assert resumed.returncode == 0, resumed.stderr
  assert f"checkpoint {newest} is damaged" in resumed.stdout
  assert f"resuming from the checkpoint of step {before}" in resumed.stdout
  assert_same_run(tmp_path, whole[0])


@pytest.mark.slow
def test_asked_to_stop_then_resumed_is_the_same_run(whole, launch, tmp_path):
  first = launch(tmp_path, at=(signal.SIGINT, "compile"))
  assert first.returncode == 130
  assert "stopped by SIGINT at step 0 of 10: nothing was lost" in first.stdout
  second = launch(tmp_path, at=(signal.SIGTERM, 3))
  assert second.returncode == 0
  noted = "\nSIGTERM: finishing the current step, then saving ...\n"
  assert second.stderr == noted
  # Metrics arrive one step late.
  assert (
    "stopped by SIGTERM at step 4 of 10: the state is saved" in second.stdout
  )
  assert steps(tmp_path)[-1] == 4
  spent = stored(tmp_path, 4)["meta"]["spent"]
  third = launch(tmp_path, at=(signal.SIGINT, 6))
  assert third.returncode == 130
  assert "resuming from the checkpoint of step 4" in third.stdout
  assert "stopped by SIGINT at step 7 of 10: the state is saved" in third.stdout
  later = stored(tmp_path, 7)["meta"]["spent"]
  last = launch(tmp_path)
  assert last.returncode == 0
  assert_same_run(tmp_path, whole[0])
  # The clocks of all processes are added up.
  (row,) = results.read_results(tmp_path)
  assert all(0 < spent[name] < later[name] for name in spent)
  assert row["wall_seconds"] > later["wall_seconds"]
  assert row["compile_seconds"] > later["compile_seconds"]


@pytest.mark.slow
def test_killed_before_the_result_was_written(whole, launch, tmp_path):
  copy = tmp_path / "run"
  shutil.copytree(whole[0], copy)
  (copy / results.RESULTS).unlink()
  (copy / "training.png").unlink()
  assert launch(copy).returncode == 0
  assert_same_run(copy, whole[0])
  assert (copy / "training.png").exists()
  (row,) = results.read_results(copy)
  assert row["steps_per_second"] > 0
  assert row["compile_seconds"] > 0


@pytest.mark.slow
def test_a_number_that_is_not_finite_stops_the_run(launch, tmp_path):
  bad = 5
  result = launch(tmp_path, at=(bad, "poison"))
  assert result.returncode == 1
  assert re.fullmatch(
    r"error: loss is nan at step 5\. The state .*\n", result.stderr
  )
  kept = tmp_path / "not_finite" / str(bad)
  assert str(kept) in result.stdout
  assert (kept / "state").is_dir()
  ids = json.loads((kept / "sample_ids.json").read_text())
  assert ids["step"] == bad
  assert len(ids["unlabelled"]) == 256
  assert len(ids["support"]) == 10
  assert steps(tmp_path) == [2, 4]
  assert [row["step"] for row in rows(tmp_path)] == [3, 5]
  assert not (tmp_path / results.RESULTS).exists()


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_fails_the_run(launch, tmp_path):
  result = launch(tmp_path, at=(65536, "limit"))
  assert result.returncode == 1
  # orbax adds lines of its own.
  assert re.search("^error: .*could not be written", result.stderr, re.M)
  assert "paws_jax/cli/dispatch.py" not in result.stderr
  assert steps(tmp_path) == []
  assert not (tmp_path / results.RESULTS).exists()


@pytest.mark.slow
def test_a_file_where_checkpoints_should_be(launch, tmp_path):
  (tmp_path / workdir_lib.CHECKPOINTS).write_text("in the way")
  result = launch(tmp_path)
  assert result.returncode == 1
  assert result.stderr.startswith("error: ")
  assert "cannot hold checkpoints" in result.stderr


@pytest.mark.slow
def test_a_reader_that_leaves_does_not_end_the_run(whole, launch):
  with subprocess.Popen(["true"], stdin=subprocess.PIPE) as gone:
    gone.wait()
    result = launch(whole[0], stdout=gone.stdin)
  assert result.returncode == 0
  assert result.stderr == ""


def tiny(**changes):
  spec = importlib.util.spec_from_file_location("tiny_recipe", RECIPE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config()
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


def test_prepare_writes_recipe_environment_and_split(tmp_path):
  prepared = pretrain.prepare(tiny(), str(tmp_path / "run"))
  assert prepared.experiment.total_steps == STEPS
  names = sorted(path.name for path in prepared.workdir.iterdir())
  assert names == [".lock", "config.json", "environment.json", "split.json"]
  split = json.loads((prepared.workdir / "split.json").read_text())
  assert split["hash"] == prepared.experiment.dataset.split.hash


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({"optim__peak_lr": float("nan")}, r"optim\.peak_lr is nan"),
    ({"data__source": "digit"}, "digits, idx, tfds"),
    ({"method__name": "pows"}, "pows.*paws"),
    ({"model__name": "resnet51"}, "'resnet51'; known are resnet50, "),
    ({"train__steps_per_call": 3}, "3, which does not divide .* 10"),
    ({"train__batch_size": 1438 * 8}, "11504 but .* 1437"),
  ],
)
def test_prepare_refuses_before_anything_is_written(tmp_path, changes, problem):
  with pytest.raises(ValueError, match=problem):
    pretrain.prepare(tiny(**changes), str(tmp_path / "run"))
  assert not (tmp_path / "run").exists()


def test_prepare_refuses_a_comparison_with_nothing(tmp_path):
  with pytest.raises(FileNotFoundError, match="--compare_to=nothing"):
    pretrain.prepare(tiny(), str(tmp_path / "run"), compare_to="nothing")
  assert not (tmp_path / "run").exists()


def test_prepare_refuses_results_that_it_could_not_append_to(tmp_path):
  (tmp_path / results.RESULTS).write_text("{}")
  with pytest.raises(ValueError, match="not a JSON list"):
    pretrain.prepare(tiny(), str(tmp_path))


def test_out_of_memory_says_what_to_lower():
  config = tiny()
  with (
    pytest.raises(MemoryError) as caught,
    out_of_memory.training(config_lib.resolve(config)),
  ):
    raise jax.errors.JaxRuntimeError(
      "RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore\nlines"
    )
  message = str(caught.value)
  assert "train.batch_size (now 256)" in message
  assert "support.images_per_class (now 2)" in message
  assert "eval.batch_size (now 256)" in message
  assert message.endswith("Out of memory allocating 99 bytes.")


def test_other_errors_of_the_runtime_pass():
  with (
    pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
    out_of_memory.training(config_lib.resolve(tiny())),
  ):
    raise jax.errors.JaxRuntimeError("INTERNAL: no idea")


ROW = {
  "method": "paws",
  "dataset": "digits",
  "num_labels": 40,
  "num_test": 360,
  "top1": 0.9,
  "top5": 1.0,
  "raw_pixel_top1": 0.7,
  "raw_pixel_top5": 0.95,
  "leave_one_out_top1": 0.8,
  "wall_seconds": 100.4,
  "compile_seconds": 20.0,
  "steps_per_second": 3.456,
}


def test_table():
  assert pretrain.table(ROW) == (
    "digits: 40 labels, 360 test images, 95 % intervals\n"
    "                          top-1                   top-5\n"
    "PAWS-NN                    90.0% [86.5%, 92.7%]   "
    "100.0% [98.9%, 100.0%]\n"
    "soft NN on raw pixels      70.0% [65.1%, 74.5%]   "
    " 95.0% [92.2%, 96.8%]\n"
    "leave-one-out, labelled    80.0% [65.2%, 89.5%]\n"
    "\n"
    "100 s in all, 20 s of them compiling; 3.46 steps/s"
  )


def test_table_of_another_method_and_single_labels():
  text = pretrain.table(
    ROW | {"method": "supervised", "leave_one_out_top1": None}
  )
  assert "\nsupervised, soft NN  " in text
  assert "leave-one-out" not in text


def test_footer():
  text = pretrain.footer(pathlib.Path("/w"), "")
  assert text.splitlines()[0] == "checkpoint  /w/checkpoints"
  assert "next" not in text
  assert pretrain.footer(pathlib.Path("/w"), "make tea").endswith(
    "\n\nnext, try   make tea"
  )
