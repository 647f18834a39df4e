"""Whole runs on images of one's own: folders, a manifest, a TFDS data set.

Two classes of real photographs: JPEG files cut from the two pictures that come
with scikit-learn.
"""

import functools
import importlib.util
import io
import json
import pathlib
import re

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import doctor
from paws_jax.tasks import pretrain
from paws_jax.training import bad_images

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
CLASSES = ("china", "flower")
NUM_LABELLED, NUM_UNLABELLED, NUM_TEST = 3, 12, 5

pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(2)]

# What makes a recipe small enough for a test.
SMALL = {
  "model.name": "small_resnet",
  "model.output_dim": 8,
  "views.large.size": 32,
  "views.small.size": 16,
  "views.eval_resize": 36,
  "support.classes_per_step": 2,
  "support.images_per_class": 2,
  "data.canvas_size": 64,
  "train.batch_size": 8,
  "train.epochs": 2,
  "optim.warmup_epochs": 1.0,
  "eval.every_steps": 3,
  "checkpoint.every_steps": 3,
  "checkpoint.keep_every_steps": 0,
  "log.every_steps": 1,
}
# Views that are only cut: most of the time of a run here is their compiler's.
PLAIN = {
  f"views__{name}__{field}_probability": 0.0
  for name in ("large", "small")
  for field in ("flip", "jitter", "grey", "blur")
}


@functools.cache
def photographs():
  from sklearn import datasets

  return dict(zip(CLASSES, datasets.load_sample_images().images, strict=True))


@functools.cache
def jpeg(name, number):
  """A photograph of 70 x 90 pixels, the same for the same number."""
  rng = np.random.default_rng([CLASSES.index(name), number])
  picture = photographs()[name]
  top, left = rng.integers(0, np.subtract(picture.shape[:2], (70, 90)))
  file = io.BytesIO()
  Image.fromarray(picture[top : top + 70, left : left + 90]).save(file, "JPEG")
  return file.getvalue()


def write(path, content):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
  """A folder of classes, with unlabelled and test images beside it."""
  root = tmp_path / "photos"
  for name in CLASSES:
    for i in range(NUM_LABELLED):
      write(root / "labelled" / name / f"{i}.jpg", jpeg(name, i))
    for i in range(NUM_UNLABELLED):
      write(root / "unlabelled" / f"{name}{i}.jpg", jpeg(name, 100 + i))
    for i in range(NUM_TEST):
      write(root / "test" / name / f"{i}.jpg", jpeg(name, 200 + i))
  return root


def recipe(name, variant, **changes):
  path = CONFIGS / f"{name}.py"
  spec = importlib.util.spec_from_file_location(name, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(variant)
  changes = {k.replace("__", "."): v for k, v in changes.items()}
  config.update_from_flattened_dict(SMALL | changes)
  return config


def run(config, workdir):
  assert pretrain.run(pretrain.prepare(config, str(workdir))) == 0
  return results.read_results(workdir)[-1]


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["laptop", "gpu"])
def test_a_folder_of_images(folder, tmp_path, capsys, variant):
  config = recipe(
    "image_folder",
    variant,
    # One of the two as it stands.
    **(PLAIN if variant == "gpu" else {}),
    data__dir=str(folder / "labelled"),
    data__unlabelled_dir=str(folder / "unlabelled"),
    data__test_dir=str(folder / "test"),
  )
  row = run(config, tmp_path / "run")
  assert row["dataset"] == "labelled"
  assert row["num_labels"] == 2 * NUM_LABELLED
  assert row["num_test"] == 2 * NUM_TEST
  # 30 training images make 3 batches of 8.
  assert row["steps"] == 6
  assert 0 <= row["top1"] <= row["top5"] == 1
  assert row["num_raw_pixel"] == 2 * NUM_TEST
  for name in ("raw_pixel", "raw_pixel_1nn", "raw_pixel_logistic"):
    assert 0 <= row[f"{name}_top1"] <= 1
  rows = metrics.read(tmp_path / "run" / metrics.METRICS)
  stalls = [row["input_stall"] for row in rows if "input_stall" in row]
  assert len(stalls) == 6
  assert all(0 <= stall <= 1 for stall in stalls)
  assert "input stall" in capsys.readouterr().out
  assert (tmp_path / "run" / "training.png").exists()
  assert not (tmp_path / "run" / bad_images.BAD_IMAGES).exists()


@pytest.mark.slow
def test_a_manifest_stopped_and_resumed(folder, tmp_path):
  lines = ["path,label,split"]
  for path in sorted(folder.rglob("*.jpg")):
    part, name = path.parent.parent.name, path.parent.name
    label = name if name in CLASSES else ""
    # The test images serve to watch the training; one is held out for the end.
    split = "val" if part == "test" else "train"
    if part == "test" and path.stem == "0":
      split = "test"
    lines.append(f"{path.relative_to(folder)},{label},{split}")
  (folder / "labels.csv").write_text("\n".join(lines) + "\n")
  # One epoch of three steps, then two epochs: resumed at the third step. The
  # schedule is that of the longer run from there on, so it is made constant.
  changes = PLAIN | {
    "data__dir": str(folder),
    "data__manifest": "labels.csv",
    "optim__start_lr": 1e-3,
    "optim__final_lr": 1e-3,
  }
  straight = run(
    recipe("image_folder", "laptop", **changes), tmp_path / "straight"
  )
  assert straight["num_validation"] == 2 * (NUM_TEST - 1)
  assert straight["num_test"] == 2
  short = recipe("image_folder", "laptop", **changes, train__epochs=1)
  run(short, tmp_path / "resumed")
  resumed = run(
    recipe("image_folder", "laptop", **changes), tmp_path / "resumed"
  )
  for name in ("top1", "validation_top1", "leave_one_out_top1", "split_hash"):
    assert resumed[name] == straight[name]
  losses = [
    [
      row["loss"]
      for row in metrics.read(tmp_path / name / metrics.METRICS)
      if "loss" in row
    ]
    for name in ("straight", "resumed")
  ]
  assert len(losses[0]) == 6
  assert losses[0] == losses[1]


@pytest.mark.slow
def test_bad_images_are_named_or_replaced(folder, tmp_path, capsys):
  bad = folder / "unlabelled" / "china0.jpg"
  bad.write_bytes(bad.read_bytes()[:500])
  label = folder / "labelled" / "flower" / "1.jpg"
  label.write_text("<html>not found</html>")
  changes = PLAIN | {
    "data__dir": str(folder / "labelled"),
    "data__unlabelled_dir": "../unlabelled",
  }
  workdir = tmp_path / "run"
  prepared = pretrain.prepare(
    recipe("image_folder", "laptop", **changes), str(workdir)
  )
  with pytest.raises(errors.BadImageError, match=r"china0\.jpg|flower/1\.jpg"):
    pretrain.run(prepared)
  # The same run goes on without them.
  config = recipe(
    "image_folder", "laptop", **changes, data__on_bad_image="skip"
  )
  row = run(config, workdir)
  assert row["num_labels"] == 2 * NUM_LABELLED - 1
  assert row["num_test"] == 0
  assert row["top1"] is None
  assert row["leave_one_out_top1"] is not None
  bad = json.loads((workdir / bad_images.BAD_IMAGES).read_text())
  assert set(bad) == {"flower/1.jpg", "../unlabelled/china0.jpg"}
  assert "2 more images cannot be read; " in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_goes_on_after_an_image_has_been_repaired(folder, tmp_path):
  config = recipe(
    "image_folder",
    "laptop",
    data__dir=str(folder / "labelled"),
    data__unlabelled_dir="../unlabelled",
  )
  bad = folder / "unlabelled" / "china0.jpg"
  whole = bad.read_bytes()
  workdir = tmp_path / "run"

  def prepare():
    return pretrain.prepare(config, str(workdir)).experiment.dataset.split.hash

  bad.write_bytes(whole[:500])
  damaged = prepare()
  # What a run has left that a bad image has stopped.
  (workdir / workdir_lib.CHECKPOINTS / "3").mkdir(parents=True)
  bad.unlink()
  bad.symlink_to("nowhere")
  assert prepare() == damaged
  bad.unlink()
  bad.write_bytes(whole)
  assert prepare() == damaged
  # Another image is another data set.
  bad.rename(bad.with_name("china_0.jpg"))
  with pytest.raises(errors.WorkdirError, match="or the data have changed"):
    prepare()


@pytest.mark.parametrize("rivals", ["1pct,10pct", "width2,8gpu,width4"])
def test_variants_that_exclude_each_other_are_refused(rivals):
  names = rivals.replace("8gpu,", "").replace(",", ", ")
  with pytest.raises(ValueError, match=f"variants {names} of imagenet.py excl"):
    recipe("imagenet", rivals)


def test_imagenets_recipe_takes_its_labels_from_the_list():
  assert recipe("imagenet", "1pct").data.labels_per_class == 0
  # Other labels must be asked for instead of the list.
  with pytest.raises(ValueError, match="the file tells all labelled images"):
    config_lib.resolve(recipe("imagenet", "1pct", data__labels_per_class=50))
  other = {"data__labels_per_class": 50, "data__labels_file": ""}
  config_lib.resolve(recipe("imagenet", "1pct", **other))


@pytest.fixture(scope="module")
def tiny_imagenet(tmp_path_factory):
  """Directory of a data set that TFDS has prepared."""
  import tensorflow_datasets as tfds

  class TinyImagenet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("5.1.0")

    def _info(self):
      features = tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(encoding_format="jpeg"),
          "label": tfds.features.ClassLabel(names=CLASSES),
          "file_name": tfds.features.Text(),
        }
      )
      return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager):
      return {
        "train": self._generate_examples(0, 12),
        "validation": self._generate_examples(200, 5),
      }

    def _generate_examples(self, first, num):
      for label, name in enumerate(CLASSES):
        for i in range(first, first + num):
          file_name = f"{name}_{i}.JPEG"
          yield (
            file_name,
            {
              "image": io.BytesIO(jpeg(name, i)),
              "label": label,
              "file_name": file_name,
            },
          )

  builder = TinyImagenet(data_dir=str(tmp_path_factory.mktemp("tfds")))
  builder.download_and_prepare()
  return str(builder.data_path)


def imagenet_recipe(tiny_imagenet, tmp_path, variant, **changes):
  labels = tmp_path / "labels.txt"
  labels.write_text("".join(f"{n}_{i}.JPEG\n" for n in CLASSES for i in (3, 7)))
  return recipe(
    "imagenet",
    variant,
    data__dir=tiny_imagenet,
    data__tfds_name="",
    data__labels_file=str(labels),
    **changes,
  )


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["1pct,8gpu", "10pct,100ep"])
def test_imagenets_recipe_on_a_prepared_data_set(
  tiny_imagenet, tmp_path, variant
):
  # One of the two as it stands.
  changes = PLAIN if variant == "10pct,100ep" else {}
  config = imagenet_recipe(
    tiny_imagenet, tmp_path, variant, views__small__count=1, **changes
  )
  assert config.method.me_max == (variant == "10pct,100ep")
  row = run(config, tmp_path / "run")
  assert row["num_labels"] == 4
  assert row["num_test"] == 10
  assert row["steps"] == 6
  split = json.loads((tmp_path / "run" / "split.json").read_text())
  assert split["class_counts"] == [2, 2]


@pytest.mark.slow
def test_the_doctor_on_a_prepared_data_set(tiny_imagenet, tmp_path, capsys):
  config = imagenet_recipe(tiny_imagenet, tmp_path, "1pct")
  sheet = tmp_path / "sheet"
  assert doctor.run(config, str(sheet), train_command="train") == 0
  output = capsys.readouterr().out
  assert "24 training images, 24 of them with a label; 2 classes" in output
  # Labels used and unused of each class.
  assert len(re.findall(r"(?m)^ *'\w+' +2 +10\b", output)) == 2
  assert (sheet / "views.png").exists()
