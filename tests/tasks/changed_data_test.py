"""Data that have changed since a run: what is said, and how to go on."""

import gzip
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import load_dataset
from paws_jax.data.sources import paths
from paws_jax.runs import data_changes
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import evaluate
from paws_jax.tasks import pretrain
from tests import own_data_runs
from tests import quick_compile

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path, monkeypatch):
  """The current directory, with data."""
  monkeypatch.chdir(own_data_runs.write(tmp_path))
  return tmp_path


def _dataset(recipe):
  recipe = config_lib.resolve(recipe)
  return load_dataset.load(recipe.data, recipe.views)


def _start(layout, **changes):
  """A run without weights; what pre-training writes about recipe and data."""
  recipe = own_data_runs.config(layout, **changes)
  split = _dataset(recipe).split
  recipe = paths.absolute(config_lib.resolve(recipe))
  run = workdir_lib.prepare("run", recipe, split.as_json())
  workdir_lib.write_split(run, split.as_json(), split.list_images)
  (run / workdir_lib.CHECKPOINTS / "5").mkdir(parents=True)
  return run


def _refusal(run, layout, **changes):
  """What opening the run says, after training and by pre-training."""
  recipe = own_data_runs.config(layout, **changes)
  split = _dataset(recipe).split
  recipe = paths.absolute(config_lib.resolve(recipe))
  found = []
  for open_run in (workdir_lib.open_run, workdir_lib.prepare):
    with pytest.raises(errors.WorkdirError) as caught:
      open_run(run, recipe, split.as_json(), split.list_images)
    found.append(str(caught.value))
  assert found[0] == found[1]
  return found[0]


def _table(change):
  path = pathlib.Path("photos/labels.csv")
  path.write_text(change(path.read_text()))


def test_new_and_lost_images_are_named(home):
  run = _start("folders")
  for k in range(8):
    shutil.copy("photos/unlabelled/10.png", f"photos/labelled/a/new{k}.png")
  os.remove("photos/unlabelled/11.png")
  message = _refusal(run, "folders")
  assert (
    "\n  new training images (8): a/new0.png [a], a/new1.png [a], "
    "a/new2.png [a], a/new3.png [a], a/new4.png [a] and 3 more\n" in message
  )
  assert (
    "\n  training images that are gone (1): ../unlabelled/11.png\n" in message
  )
  assert "\n  labelled images: 6 then, 14 now\n" in message


def test_labels_of_a_table_that_came_went_and_changed_are_named(home):
  run = _start("table")
  _table(lambda text: text.replace("led/10.png,,", "led/10.png,b,"))
  message = _refusal(run, "table")
  assert "\n  images with a label now (1): unlabelled/10.png [b]\n" in message
  assert (
    "6 then, 7 now\n  labelled only now (1): unlabelled/10.png\n" in message
  )
  _table(lambda text: text.replace("labelled/a/0.png,a", "labelled/a/0.png,b"))
  message = _refusal(run, "table")
  assert "\n  images with another label (1): labelled/a/0.png [b]\n" in message
  _table(lambda text: text.replace("labelled/a/0.png,b", "labelled/a/0.png,"))
  message = _refusal(run, "table")
  assert "\n  images without a label now (1): labelled/a/0.png [a]\n" in message
  assert "\n  labelled only then (1): labelled/a/0.png\n" in message


def test_classes_that_came_are_named(home):
  run = _start("folders")
  own_data_runs.copy("photos/unlabelled/10.png", "photos/labelled/new/0.png")
  assert "\n  new classes (1): new\n" in _refusal(run, "folders")


def test_another_list_of_labelled_images_is_named(home):
  run = _start("list")
  path = pathlib.Path("photos/labelled.txt")
  path.write_text(path.read_text().replace("labelled/a/0.png\n", ""))
  message = _refusal(run, "list")
  assert "\n  labelled images: 6 then, 5 now\n" in message
  assert "\n  labelled only then (1): labelled/a/0.png\n" in message


def test_in_memory_rows_are_named(home):
  rows = pathlib.Path("rows.txt")
  chosen = {"data__labels_per_class": 0, "data__labels_file": "rows.txt"}
  rows.write_text("0\n1\n2\n3\n")
  run = _start("memory", **chosen)
  rows.write_text("0\n1\n2\n5\n")
  message = _refusal(run, "memory", **chosen)
  assert "\n  labelled images: 4 then, 4 now\n" in message
  assert (
    "\n  labelled only now (1): row 5\n  labelled only then (1): row 3\n"
    in message
  )
  path = home / "idx" / "train-images-idx3-ubyte"
  path.write_bytes(path.read_bytes()[:-1] + b"\0")
  message = _refusal(run, "memory", **chosen)
  assert "\n  the images, or the labels of some, are others\n" in message


def test_the_names_are_written_once_and_the_same(home):
  run = _start("folders")
  before = (run / data_changes.IMAGES).read_bytes()
  images = data_changes.read(run)
  assert images.names[0] == "a/0.png"
  assert images.classes[0] == "a"
  assert images.classes[-1] == ""
  assert len(images.names) == 48
  data_changes.write(run, images)
  assert (run / data_changes.IMAGES).read_bytes() == before
  assert not (_start_in_memory() / data_changes.IMAGES).exists()


def _start_in_memory():
  split = _dataset(own_data_runs.config("memory")).split
  recipe = config_lib.resolve(own_data_runs.config("memory"))
  run = workdir_lib.prepare("other", recipe, split.as_json())
  workdir_lib.write_split(run, split.as_json(), split.list_images)
  return run


def test_the_command_that_continues_has_what_is_different(home):
  run = _start("folders")
  pathlib.Path("run-2").mkdir()
  os.rename("photos", "my photos")
  shutil.copy("my photos/unlabelled/10.png", "my photos/labelled/a/new.png")
  message = _refusal(
    run,
    "folders",
    data__dir="my photos/labelled",
    data__unlabelled_dir="my photos/unlabelled",
    data__test_dir="my photos/test",
  )
  command = _command(message)
  assert command == [
    "python",
    "-m",
    "paws_jax.main",
    f"--config={run}/config.json",
    f"--config.data.dir={home}/my photos/labelled",
    f"--config.data.test_dir={home}/my photos/test",
    f"--config.data.unlabelled_dir={home}/my photos/unlabelled",
    f"--config.model.init_from={run}",
    f"--workdir={run}-3",
  ]
  assert "--task=evaluate --test=DIR" in message


def _command(message):
  (line,) = re.findall(r"^  (python -m .*)$", message, flags=re.MULTILINE)
  return shlex.split(line)


def test_more_labels_by_the_recipe_get_the_command_too(home):
  run = _start("memory")
  recipe = own_data_runs.config("memory", data__labels_per_class=5)
  with pytest.raises(errors.WorkdirError) as caught:
    recipe_lib.check_recipe(run, config_lib.resolve(recipe))
  message = str(caught.value)
  assert "data.labels_per_class: 2 there, 5 now" in message
  assert "--config.data.labels_per_class=5" in _command(message)
  recipe.optim.peak_lr = 0.5
  with pytest.raises(errors.WorkdirError) as caught:
    recipe_lib.check_recipe(run, config_lib.resolve(recipe))
  assert "init_from" not in str(caught.value)


def _run(command):
  done = subprocess.run(
    [sys.executable, *command[1:]],
    env=os.environ | {"PYTHONPATH": str(ROOT)} | quick_compile.ENVIRON,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folders", "memory"])
def test_training_continues_with_more_labels_by_the_command(layout, home):
  # As docs/own_data.md says.
  run = own_data_runs.make(own_data_runs.config(layout), "run")
  recipe = own_data_runs.config(layout)
  if layout == "folders":
    os.rename("photos/unlabelled/10.png", "photos/labelled/a/10.png")
  else:
    recipe.data.labels_per_class = 5
  for task in (evaluate, pretrain):
    with pytest.raises(errors.WorkdirError) as caught:
      task.prepare(recipe, "run")
  printed = _run(_command(str(caught.value)))
  assert f"arrays from {run} (a run, step " in printed
  (row,) = results.read_results(pathlib.Path("run-2"))
  assert row["num_labels"] == (10 if layout == "memory" else 7)
  assert not (run / results.RESULTS).exists()
  # The first run is measured on other images meanwhile.
  if layout == "folders":
    stored = recipe_lib.load("run")
    with pytest.raises(errors.WorkdirError, match="have changed"):
      evaluate.prepare(stored, "run")
    evaluate.prepare(recipe_lib.load("run-2"), "run-2", test="photos/test")


@pytest.mark.parametrize(
  "content",
  [b"", b"no gzip", gzip.compress(b"[1]")],
  ids=["empty", "no gzip", "other JSON"],
)
def test_a_run_without_names_says_what_it_can(content, home):
  run = _start("folders")
  (run / data_changes.IMAGES).write_bytes(content)
  shutil.copy("photos/unlabelled/10.png", "photos/labelled/a/new.png")
  message = _refusal(run, "folders")
  assert "the images, or the labels of some, are others\n" in message
  assert "labelled images: 6 then, 7 now\n" in message
  os.remove(run / data_changes.IMAGES)
  assert _refusal(run, "folders") == message
