"""Recipes and directories of fits, and fits to files."""

import os
import shutil
import signal
import threading

import numpy as np
import pytest
from PIL import Image
from sklearn import model_selection

import paws_jax
from paws_jax import errors
from paws_jax.data import load_dataset
from paws_jax.data.sources import arrays
from paws_jax.estimator import images as images_lib
from paws_jax.estimator import labels as labels_lib
from paws_jax.estimator import training
from paws_jax.predict import source
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import signals
from paws_jax.tasks import pretrain
from tests.estimator import frames
from tests.estimator import tiny_fit

pytestmark = pytest.mark.unoptimized


def data(images=None, y=(0, 1)):
  images = images or images_lib.Pixels(np.zeros((2, 8, 8, 3), np.uint8))
  labels = labels_lib.encode(list(y), num_images=2)
  return training.Data(images, labels)


def recipe(name="image_folder:laptop", seed=None, images=None, **fields):
  return training.recipe(name, fields, seed, data(images))


def test_arrays_take_the_pipeline_in_memory():
  made = recipe()
  assert (made.data.source, made.data.pipeline) == ("arrays", "memory")
  assert made.views.specs["large"].size == 48
  assert made.model.name == "small_resnet3"


@pytest.mark.parametrize("name", ["image_folder:laptop", "image_folder"])
def test_places_take_the_pipeline_on_the_host(name, tmp_path):
  made = recipe(name, images=images_lib.Place(str(tmp_path)))
  assert (made.data.source, made.data.pipeline) == ("folder", "host")
  assert made.data.dir == str(tmp_path)
  table = tmp_path / "labels.csv"
  table.touch()
  made = recipe(name, images=images_lib.Place(str(table)))
  assert (made.data.dir, made.data.manifest) == ("", str(table))


def test_a_folder_and_another_directory_are_refused(tmp_path):
  place = images_lib.Place(str(tmp_path))
  fields = {"data.dir": "elsewhere"}
  with pytest.raises(
    errors.InputError, match=r"data\.dir is 'elsewhere' but X"
  ):
    recipe("image_folder:laptop", images=place, **fields)


def test_all_labels_are_used_unless_the_user_says_otherwise():
  # The quickstart draws 4 labels of each of 10 classes.
  made = recipe("quickstart")
  assert made.data.labels_per_class == 0
  assert made.support.classes_per_step == 0
  fields = {"data.labels_per_class": 2, "support.classes_per_step": 10}
  made = recipe("quickstart", **fields)
  assert made.data.labels_per_class == 2
  assert made.support.classes_per_step == 10


def test_classes_of_a_folder_are_counted_for_a_step(tmp_path):
  for name in ("a", "b"):
    tiny_fit.write(tmp_path / name, count=1)
  fields = {**tiny_fit.FIELDS, **tiny_fit.COLOR}
  images = images_lib.Place(str(tmp_path))
  data = training.Data(images, None)
  made = training.recipe(tiny_fit.RECIPE, fields, None, data)
  # Of the five that the recipe asks for.
  assert made.support.classes_per_step == 0


def test_a_seed_is_that_of_the_recipe_or_the_one_given():
  assert recipe().seed == 0
  assert recipe(seed=5).seed == 5


@pytest.mark.parametrize(
  ("name", "fields", "words"),
  [
    ("quickstat", {}, "recipe=quickstat: .* did you mean recipe=quickstart"),
    ("quickstart:large", {}, "this recipe has no variants"),
    ("image_folder:lap", {}, "variant 'lap' .* known are gpu, laptop"),
    ("nowhere.py", {}, "there is no such file"),
    ("quickstart", {"train.epochs": 0}, r"train\.epochs is 0: it must"),
    ("quickstart", {"data.test_dir": "x"}, "only 'folder' reads it"),
  ],
)
def test_a_wrong_recipe_is_refused(name, fields, words):
  with pytest.raises(errors.UserError, match=words):
    recipe(name, **fields)


def test_a_temporary_directory_is_removed():
  with training.directory(None) as path:
    assert os.path.isdir(path)
  assert not os.path.exists(path)
  with pytest.raises(ZeroDivisionError), training.directory(None) as path:
    raise ZeroDivisionError
  assert not os.path.exists(path)


def test_a_directory_with_steps_is_kept_after_a_failure():
  paths = []

  def fail():
    with training.directory(None) as path:
      paths.append(path)
      os.makedirs(os.path.join(path, "checkpoints", "7"))
      raise ZeroDivisionError

  with pytest.raises(ZeroDivisionError) as failure:
    fail()
  note = f"The run is kept: fit with workdir={paths[0]!r} continues it."
  assert failure.value.__notes__ == [note]
  assert os.path.isdir(paths[0])
  shutil.rmtree(paths[0])


def test_the_directory_of_the_user_is_kept(tmp_path):
  with training.directory(tmp_path / "run") as path:
    assert path == str(tmp_path / "run")
    os.mkdir(path)
  assert os.path.isdir(path)


def test_a_directory_may_lie_in_a_bucket_or_at_home(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  for given, found in (
    ("gs://bucket/run", "gs://bucket/run"),
    ("~/run", f"{tmp_path}/run"),
    ("run", os.path.abspath("run")),
  ):
    with training.directory(given) as path:
      assert path == found
  with (
    pytest.raises(errors.InputError, match="neither a path on a disk nor"),
    training.directory("memory://run"),
  ):
    pass


def test_a_fit_to_files_is_on_a_disk(tmp_path):
  images = images_lib.read(tiny_fit.write(tmp_path, count=2))
  made, labels = recipe(images=images), data(images).labels
  with pytest.raises(errors.WorkdirError, match="is in a bucket, and a fit to"):
    training._listed(made, images, labels, "gs://bucket/run")


def test_an_interrupted_fit_says_how_to_continue(monkeypatch, capsys, tmp_path):
  outcome = pretrain.Outcome(None, 7, signal.SIGINT)
  monkeypatch.setattr(pretrain, "train", lambda prepared: outcome)
  model = paws_jax.PawsClassifier(
    tiny_fit.RECIPE, workdir=tmp_path / "run", **tiny_fit.FIELDS
  )
  with pytest.raises(KeyboardInterrupt):
    model.fit(tiny_fit.images(), tiny_fit.labels())
  said = capsys.readouterr().out
  assert f"stopped at step 7: fit with workdir='{tmp_path}/run'" in said
  assert not hasattr(model, "classifier_")


@pytest.mark.parametrize(("batch_size", "count"), [(11, 1), (12, 6), (16, 8)])
def test_devices_divide_a_batch(batch_size, count):
  assert len(training._devices(batch_size)) == count


def test_classes_of_places_are_counted(tmp_path):
  tiny_fit.write(tmp_path / "only")
  model = paws_jax.PawsClassifier(
    tiny_fit.RECIPE, **tiny_fit.FIELDS, **tiny_fit.COLOR
  )
  with pytest.raises(errors.InputError, match="1 class"):
    model.fit(tmp_path)
  with pytest.raises(errors.InputError, match="labels of their own: leave y"):
    model.fit(tmp_path, [0] * 24)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  return tiny_fit.write(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def on_files(photos, tmp_path_factory):
  """A fit to files with a directory of its own; classes 3 and 7."""
  workdir = tmp_path_factory.mktemp("run")
  model = paws_jax.PawsClassifier(
    tiny_fit.RECIPE,
    verbose=False,
    workdir=workdir,
    **tiny_fit.FIELDS,
    **tiny_fit.COLOR,
  )
  columns = {"path": photos, "label": tiny_fit.labels(values=(3, 7))}
  return model.fit(frames.Frame(columns))


@pytest.mark.slow
def test_files_are_learned(on_files, photos):
  assert on_files.classes_.tolist() == [3, 7]
  assert on_files.predict(photos).tolist() == [3, 7] * 12
  assert on_files.support_.tolist() == [i for i in range(24) if i % 3 != 2]
  neighbors = on_files.kneighbors(photos, 1, return_distance=False)[:, 0]
  rows = on_files.support_
  np.testing.assert_array_equal(on_files.support_[neighbors[rows]], rows)
  frame = frames.Frame({"path": photos[:2], "label": [7, None]})
  assert on_files.score(frame) == 0.0


def test_a_finished_run_is_not_trained_again(on_files, photos, capsys):
  again = paws_jax.PawsClassifier(**on_files.get_params())
  again.set_params(verbose=True)
  again.fit(photos, tiny_fit.labels(values=(3, 7)))
  assert "this run is finished (2 steps)" in capsys.readouterr().out
  np.testing.assert_array_equal(
    again.predict_proba(photos), on_files.predict_proba(photos)
  )


def test_a_directory_holds_one_run(on_files, photos):
  again = paws_jax.PawsClassifier(**on_files.get_params())
  for y in (tiny_fit.labels(values=(3, 8)), [3, 7] * 12):
    with pytest.raises(errors.WorkdirError, match="other images or labels"):
      again.fit(photos, y)
  again.set_params(optim__peak_lr=0.5)
  with pytest.raises(
    errors.WorkdirError, match=r"(?s)peak_lr.*another workdir.*optim__peak_lr="
  ) as refusal:
    again.fit(photos, tiny_fit.labels(values=(3, 7)))
  assert "--" not in str(refusal.value)
  # The table of the run is still its own.
  assert paws_jax.PawsClassifier.load(on_files.workdir).classes_.tolist() == [
    3,
    7,
  ]


def test_a_run_is_loaded_from_its_directory(on_files, photos):
  loaded = paws_jax.PawsClassifier.load(on_files.workdir)
  assert loaded.predict(photos).tolist() == on_files.predict(photos).tolist()


def test_a_folder_has_the_labels_for_scoring(on_files, tmp_path):
  for name in ("a", "b"):
    tiny_fit.write(tmp_path / name, count=1)
  with pytest.raises(errors.InputError, match="give both as texts"):
    on_files.score(tmp_path)


@pytest.mark.slow
def test_folders_are_learned_and_scored(tmp_path):
  for i, path in enumerate(tiny_fit.write(tmp_path / "all")):
    folder = tmp_path / "labelled" / ("dark", "bright")[i % 2]
    folder.mkdir(parents=True, exist_ok=True)
    os.rename(path, folder / os.path.basename(path))
  model = paws_jax.PawsClassifier(
    tiny_fit.RECIPE, verbose=False, **tiny_fit.FIELDS, **tiny_fit.COLOR
  )
  model.fit(tmp_path / "labelled")
  assert model.classes_.tolist() == ["bright", "dark"]
  assert model.score(tmp_path / "labelled") == 1.0
  assert not hasattr(model, "support_")


def test_commands_find_a_run_on_files(on_files):
  recipe = recipe_lib.load(on_files.workdir)
  dataset = load_dataset.load(recipe.data, recipe.views)
  assert dataset.class_names == ("03", "07")
  assert dataset.split.hash == on_files.result_["split_hash"]
  found = source.from_run(recipe, str(on_files.workdir))
  assert found.make().digest == on_files.classifier_.digest


@pytest.mark.slow
def test_cross_validation_trains_on_each_fold():
  model = paws_jax.PawsClassifier(
    tiny_fit.RECIPE, verbose=False, **tiny_fit.FIELDS
  )
  y = np.array([-1 if x is None else x for x in tiny_fit.labels(values=(0, 1))])
  search = model_selection.GridSearchCV(
    model, {"optim__peak_lr": [1e-3]}, cv=2, refit=False, error_score="raise"
  )
  search.fit(tiny_fit.images(48), np.tile(y, 2))
  assert search.cv_results_["mean_test_score"].tolist() == [1.0]


def test_a_fit_may_run_in_a_thread():
  found = []

  def enter():
    with signals.Signals() as received:
      found.append(received.received)

  thread = threading.Thread(target=enter)
  thread.start()
  thread.join()
  assert found == [None]


def test_images_of_a_program_are_no_data_of_commands():
  with pytest.raises(errors.InputError, match=r"PawsClassifier\.fit, which no"):
    arrays.load("arrays", directory="", tfds_name="")


def test_a_file_that_is_in_the_way_is_kept(tmp_path):
  place = tmp_path / training.TABLE
  place.write_text("mine")
  training._write(str(place), b"new", str(tmp_path))
  assert place.read_bytes() == b"new"
  kept = [p for p in tmp_path.iterdir() if p != place]
  assert [p.read_text() for p in kept] == ["mine"]


def test_odd_names_are_found(tmp_path):
  names = [tmp_path / 'a "b", c.png', tmp_path / " d\n.png"]
  for name in names:
    Image.new("RGB", (9, 9)).save(name)
  images = images_lib.read(list(map(str, names)))
  made = recipe(images=images)
  labels = data(images).labels
  listed = training._listed(made, images, labels, str(tmp_path / "run"))
  found = load_dataset.open_catalog(listed.data).train.images
  assert {found.path(i) for i in range(2)} == set(map(str, names))
