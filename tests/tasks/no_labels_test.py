"""Training without any label, for methods that use none."""

import os
import pathlib

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import methods
from paws_jax.config import methods as config_methods
from paws_jax.doctor import view_sheet
from paws_jax.plan import memory
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import doctor
from paws_jax.tasks import evaluate
from paws_jax.tasks import finetune
from paws_jax.tasks import predict
from paws_jax.tasks import pretrain
from paws_jax.tasks import report
from paws_jax.training import experiment
from tests import class_head_runs
from tests import own_data_runs

pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(2)]

LAYOUTS = ("folders", "table", "list", "no file", "empty list")
FREE = [n for n, kind in methods.METHODS.items() if not kind.needs_support]
BOUND = [n for n, kind in methods.METHODS.items() if kind.needs_support]


@pytest.fixture
def home(tmp_path, monkeypatch):
  """The current directory, with data."""
  monkeypatch.chdir(own_data_runs.write(tmp_path))
  return tmp_path


def _recipe(layout, method):
  """A recipe of data without labels: on disk, or in memory."""
  pathlib.Path("none.txt").write_text("# none\n")
  name = {"no file": "memory", "empty list": "memory"}.get(layout, layout)
  recipe = own_data_runs.config(name)
  recipe.method = config_lib.method_section(method)
  # A run must be longer than what comes before clusters and prototypes.
  recipe.train.epochs = 2
  if "freeze_steps" in recipe.method:
    recipe.method.freeze_steps = 0
  recipe.support.classes_per_step = 0
  # Few methods cut them.
  recipe.views.small.count = 0
  if config_methods.config_class(method).class_head:
    class_head_runs.change(recipe, method)
  if layout == "folders":
    recipe.data.update({"dir": "", "test_dir": ""})
  elif layout == "table":
    path = pathlib.Path("photos/labels.csv")
    rows = [line.split(",") for line in path.read_text().splitlines()[1:]]
    lines = [f"{row[0]},,\n" for row in rows if row[2] != "test"]
    path.write_text("path,label,split\n" + "".join(lines))
  elif layout == "no file":
    os.remove("idx/train-labels-idx1-ubyte")
  else:
    recipe.data.update({"labels_file": "none.txt", "labels_per_class": 0})
  return recipe


def test_there_are_methods_of_both_kinds():
  assert "simclr" in FREE
  assert "paws" in BOUND


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", FREE)
def test_a_method_without_labels_needs_none(method, layout, home):
  made = experiment.create(_recipe(layout, method))
  assert len(made.dataset.labelled) == 0
  assert made.dataset.split.as_json()["labelled_ids"] == []
  assert made.total_steps >= 1
  made.state_shapes()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", BOUND)
def test_a_method_with_labels_says_what_it_needs(method, layout, home):
  with pytest.raises(
    errors.InputError,
    match=rf"none of the \d+ training images has a label .*method\.name="
    rf"{method} .*needs none: .*simclr",
  ):
    experiment.create(_recipe(layout, method))


def test_test_images_need_labelled_ones(home):
  recipe = _recipe("folders", "simclr")
  recipe.data.test_dir = "photos/test"
  with pytest.raises(errors.InputError, match=r"judged by labelled ones"):
    experiment.create(recipe)


def test_unlabelled_images_keep_their_names_when_labels_come(home):
  without = experiment.create(_recipe("folders", "simclr")).dataset
  recipe = own_data_runs.config("folders")
  with_labels = experiment.create(recipe).dataset
  names = set(without.split.list_images().names)
  assert names < set(with_labels.split.list_images().names)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("layout", "method"),
  [("folders", "simclr"), ("empty list", "simclr"), ("folders", "msf")],
)
def test_a_run_without_labels_from_end_to_end(layout, method, home, capsys):
  recipe = _recipe(layout, method)
  prepared = pretrain.prepare(recipe, "run")
  assert pretrain.run(prepared) == 0
  text = capsys.readouterr().out
  assert "no image is labelled: no accuracy is measured" in text
  assert "--config.model.init_from=RUN" in text
  (row,) = results.read_results(prepared.workdir)
  assert row["num_labels"] == 0
  assert row["top1"] is None
  assert row["leave_one_out_top1"] is None
  assert row["raw_pixel_top1"] is None
  assert (prepared.workdir / "training.png").exists()
  assert not (prepared.workdir / workdir_lib.CLASSIFIER).exists()
  # The same command again, and the tasks that need labels.
  assert pretrain.run(pretrain.prepare(recipe, "run")) == 0
  for task, options in (
    (evaluate, {}),
    (evaluate, {"test": "photos/test"}),
    (finetune, {}),
    (report, {}),
    (
      predict,
      {
        "images": "photos/test",
        "classifier": None,
        "add_class": [],
        "head": "soft_nn",
        "output": None,
      },
    ),
  ):
    with pytest.raises(errors.InputError, match="was trained without labels"):
      task.prepare(recipe, "run", **options)
  # As the message says: with labels, from these weights.
  name = "folders" if layout == "folders" else "memory"
  labelled = own_data_runs.config(name)
  labelled.model.init_from = "run"
  made = pretrain.prepare(labelled, "new")
  assert "arrays from" in made.experiment.check_init_from()


@pytest.mark.parametrize("layout", ["folders", "empty list"])
def test_the_doctor_accepts_data_without_labels(
  layout, home, capsys, monkeypatch
):
  nothing = memory.Memory(*[0] * 5)
  monkeypatch.setattr(memory, "memory", lambda _: nothing)
  monkeypatch.setattr(view_sheet, "draw", lambda *_: home / "views.png")
  recipe = _recipe(layout, "simclr")
  assert doctor.run(recipe, "work", train_command="train") == 0
  assert "training images has a label that is used: only methods without" in (
    capsys.readouterr().out
  )
  recipe = _recipe(layout, "paws")
  assert doctor.run(recipe, "work", train_command="train") == 1
  assert "PROBLEM: " in capsys.readouterr().out


@pytest.mark.slow
def test_the_doctor_draws_views_without_labels(home):
  recipe = _recipe("folders", "simclr")
  assert doctor.run(recipe, "work", train_command="train") == 0
  assert pathlib.Path("work/views.png").exists()
