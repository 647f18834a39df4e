"""Runs whose data, directory or weights have moved or have other spellings."""

import json
import os
import pathlib
import shutil

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import load_dataset
from paws_jax.data.sources import paths
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import evaluate
from paws_jax.tasks import finetune
from paws_jax.tasks import pretrain
from paws_jax.tasks import report
from tests import own_data_runs
from tests import used_workdir

pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(2)]

# Fields of each layout that name a place, with the place as it is moved.
PLACES = {
  "folders": {
    "data.dir": "moved/labelled",
    "data.unlabelled_dir": "moved/unlabelled",
    "data.test_dir": "moved/test",
  },
  "table": {"data.dir": "moved", "data.manifest": "moved/labels.csv"},
  "list": {
    "data.dir": "moved",
    "data.manifest": "moved/labels.csv",
    "data.labels_file": "moved/labelled.txt",
  },
  "memory": {"data.dir": "moved"},
}


@pytest.fixture
def home(tmp_path, monkeypatch):
  """The current directory, with data."""
  monkeypatch.chdir(own_data_runs.write(tmp_path))
  return tmp_path


def _split(recipe):
  recipe = config_lib.resolve(recipe)
  return load_dataset.load(recipe.data, recipe.views).split.as_json()


def _start(layout):
  """A run without weights; what pre-training writes about recipe and data."""
  recipe = paths.absolute(config_lib.resolve(own_data_runs.config(layout)))
  run = workdir_lib.prepare(f"runs/{layout}", recipe, _split(recipe))
  workdir_lib.write_split(run, _split(recipe))
  (run / workdir_lib.CHECKPOINTS / "5").mkdir(parents=True)
  return run


def _open(recipe, run):
  """Opens a run as tasks after training do, and as pre-training does."""
  recipe = config_lib.resolve(recipe)
  workdir_lib.open_run(run, recipe, _split(recipe))
  workdir_lib.prepare(run, paths.absolute(recipe), _split(recipe))


def _moved(layout):
  """Moves the data; returns the recipe that says where they are."""
  os.rename("idx" if layout == "memory" else "photos", "moved")
  recipe = own_data_runs.config(layout)
  recipe.update_from_flattened_dict(PLACES[layout])
  return recipe


def _tasks(recipe, run):
  """Prepares every task that reads a run and its data."""
  step = evaluate.prepare(recipe, run).trained.step
  assert finetune.prepare(recipe, run).trained.step == step
  assert report.prepare(recipe, run).trained.step == step
  prepared = pretrain.prepare(recipe, run)
  assert prepared.experiment.total_steps == step


def test_pre_training_stores_relative_paths_absolute(home):
  pretrain.prepare(own_data_runs.config("folders"), "run")
  stored = json.loads((home / "run" / recipe_lib.RECIPE).read_text())["data"]
  assert stored["dir"] == str(home / "photos/labelled")
  assert stored["unlabelled_dir"] == str(home / "photos/unlabelled")
  assert stored["test_dir"] == str(home / "photos/test")


@pytest.mark.parametrize("layout", own_data_runs.LAYOUTS)
def test_from_another_directory_by_the_stored_recipe(layout, home, monkeypatch):
  run = _start(layout)
  monkeypatch.chdir("/")
  _open(recipe_lib.load(run), run)


@pytest.mark.parametrize("layout", own_data_runs.LAYOUTS)
@pytest.mark.parametrize("spelling", ["absolute", "link", "dots"])
def test_by_another_spelling(layout, spelling, home):
  run = _start(layout)
  recipe = own_data_runs.config(layout)
  (home / "link").symlink_to(home)
  start = {"absolute": f"{home}/", "link": "link/", "dots": "./runs/../"}
  for field in PLACES[layout]:
    name = field.removeprefix("data.")
    recipe.data[name] = start[spelling] + recipe.data[name]
  _open(recipe, run)


@pytest.mark.parametrize("layout", own_data_runs.LAYOUTS)
def test_after_the_data_have_moved(layout, home):
  run = _start(layout)
  recipe = _moved(layout)
  with pytest.raises(FileNotFoundError, match=r"data\.(dir|manifest) = "):
    _open(recipe_lib.load(run), run)
  _open(recipe, run)
  # From here the run knows the new place.
  _open(recipe_lib.load(run), run)


@pytest.mark.slow
@pytest.mark.parametrize("layout", own_data_runs.LAYOUTS)
def test_every_task_after_data_and_run_have_moved(layout, home, monkeypatch):
  own_data_runs.make(own_data_runs.config(layout), "run")
  before = finetune.prepare(recipe_lib.load("run"), "run")
  os.rename("run", "elsewhere")
  recipe = _moved(layout)
  _tasks(recipe, "elsewhere")
  after = finetune.prepare(recipe, "elsewhere")
  assert (before.sweep_id, before.run_id) == (after.sweep_id, after.run_id)
  recipe.finetune.epochs = 7
  assert finetune.prepare(recipe, "elsewhere").run_id != after.run_id
  monkeypatch.chdir("/")
  run = str(home / "elsewhere")
  _tasks(recipe_lib.load(run), run)


@pytest.mark.parametrize("name", ["unlabelled", "test"])
def test_a_directory_that_is_gone_is_named_with_its_field(name, home):
  recipe = own_data_runs.config("folders")
  shutil.rmtree(f"photos/{name}")
  with pytest.raises(
    FileNotFoundError,
    match=rf"data\.{name}_dir = .*--config\.data\.{name}_dir=DIR",
  ):
    _split(recipe)


@pytest.mark.parametrize("moved", [False, True])
def test_other_data_at_a_place_are_refused(moved, home):
  run = _start("folders")
  recipe = _moved("folders") if moved else own_data_runs.config("folders")
  os.rename(recipe.data.dir + "/a/0.png", recipe.data.dir + "/b/0.png")
  with pytest.raises(errors.WorkdirError, match="labelled images"):
    workdir_lib.open_run(run, config_lib.resolve(recipe), _split(recipe))
  with pytest.raises(errors.WorkdirError, match="labelled images"):
    workdir_lib.prepare(run, config_lib.resolve(recipe), _split(recipe))


def _swap(first, second):
  content = [pathlib.Path(path).read_bytes() for path in (first, second)]
  for path, other in zip((second, first), content, strict=True):
    pathlib.Path(path).write_bytes(other)


@pytest.mark.parametrize("layout", ["folders", "table", "list"])
@pytest.mark.parametrize(
  ("first", "second"),
  [
    ("unlabelled/10.png", "unlabelled/11.png"),
    ("labelled/a/0.png", "labelled/b/1.png"),
    ("test/a/t0.png", "test/b/t3.png"),
  ],
)
def test_on_disk_pixels_that_are_swapped_are_not_noticed(
  layout, first, second, home
):
  # As docs/own_data.md says: names count, so that files can be repaired.
  run = _start(layout)
  _swap(f"photos/{first}", f"photos/{second}")
  _open(own_data_runs.config(layout), run)


@pytest.mark.parametrize("layout", ["folders", "table"])
def test_on_disk_test_images_do_not_count(layout, home):
  run = _start(layout)
  recipe = own_data_runs.config(layout)
  if layout == "folders":
    recipe.data.test_dir = ""
  else:
    table = pathlib.Path("photos/labels.csv")
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join(x for x in lines if not x.startswith("test/")))
  _open(recipe, run)


@pytest.mark.parametrize(
  "change",
  [
    lambda: os.rename("photos/unlabelled/10.png", "photos/unlabelled/x.png"),
    lambda: os.remove("photos/unlabelled/10.png"),
    lambda: shutil.copy("photos/unlabelled/10.png", "photos/unlabelled/x.png"),
    lambda: os.rename("photos/unlabelled/10.png", "photos/labelled/a/x.png"),
  ],
)
def test_on_disk_names_of_unlabelled_images_count(change, home):
  run = _start("folders")
  change()
  recipe = own_data_runs.config("folders")
  with pytest.raises(errors.WorkdirError, match="labelled images"):
    _open(recipe, run)


@pytest.mark.parametrize("part", ["train", "t10k"])
def test_in_memory_every_pixel_counts(part, home):
  run = _start("memory")
  path = home / "idx" / f"{part}-images-idx3-ubyte"
  content = bytearray(path.read_bytes())
  content[-1] ^= 1
  path.write_bytes(content)
  with pytest.raises(errors.WorkdirError, match="labelled images"):
    _open(own_data_runs.config("memory"), run)


def test_weights_to_start_from_may_move_or_be_spelled_otherwise(home):
  (home / "a.pth").write_bytes(b"weights")
  (home / "other.pth").write_bytes(b"other")
  run = used_workdir.make(home / "run", model__init_from=str(home / "a.pth"))

  def opens(path):
    recipe = used_workdir.recipe(model__init_from=path)
    recipe_lib.check_recipe(run, recipe)

  opens("a.pth")
  opens("./run/../a.pth")
  shutil.copy("a.pth", "copy.pth")
  opens("copy.pth")
  for path in ("other.pth", "absent.pth", ""):
    with pytest.raises(errors.WorkdirError, match=r"model\.init_from"):
      opens(path)
  os.rename("a.pth", "moved.pth")
  opens("moved.pth")


def test_weights_to_start_from_cannot_be_added_to_a_run(home):
  run = used_workdir.make(home / "run")
  with pytest.raises(errors.WorkdirError, match=r"init_from: '' there, a.pth"):
    workdir_lib.prepare(run, used_workdir.recipe(model__init_from="a.pth"))
