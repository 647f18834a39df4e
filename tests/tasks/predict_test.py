"""Task `predict`: a run's images in, a table out, whatever happens between."""

import csv
import dataclasses
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import predictions
from paws_jax.predict import source as source_lib
from paws_jax.predict import write_rows
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import predict
from paws_jax.training import save_classifier
from tests import random_classifier
from tests import untrained_run

# The run and its programs take most of it, not the single tests.
pytestmark = pytest.mark.slow

COUNT = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """A finished run's directory without a classifier."""
  path = tmp_path_factory.mktemp("predict") / "run"
  shutil.copytree(untrained_run.workdir(), path)
  return path


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
  """The run's classifier in a directory of its own."""
  path = tmp_path_factory.mktemp("predict") / "saved"
  untrained_run.classifier().save(path)
  return path


@pytest.fixture
def images(tmp_path):
  """The first test images as files, one folder down, and two that are none."""
  folder = tmp_path / "images"
  (folder / "deep").mkdir(parents=True)
  pixels = untrained_run.trained().experiment.dataset.test.images
  for i in range(COUNT):
    image = Image.fromarray(pixels[i, ..., 0])
    image.save(folder / "deep" / f"{i}.png")
  (folder / "bad.jpg").write_text("no image")
  (folder / "empty.png").touch()
  return folder


def prepare(workdir="", *, config=None, **changes):
  flags = {
    "images": None,
    "classifier": None,
    "add_class": [],
    "head": "soft_nn",
    "output": None,
  }
  given = {
    k: str(v) if isinstance(v, os.PathLike) else v for k, v in changes.items()
  }
  return predict.prepare(config, str(workdir), **(flags | given))


def execute(workdir="", **changes):
  return predict.run(prepare(workdir, **changes))


def rows(path):
  with path.open(newline="") as file:
    return list(csv.DictReader(file))


def test_a_runs_images_are_predicted(run, images, capsys):
  config = untrained_run.recipe()
  shutil.rmtree(run / "classifier", ignore_errors=True)
  assert execute(run, config=config, images=images) == 0
  out = capsys.readouterr().out
  assert "making" in out
  assert "it is not there yet" in out
  assert "image 8/8" in out
  listed = run / "predictions.unreadable.csv"
  assert out.endswith(
    f"\npredictions  {run / 'predictions.csv'}\n6 of 8 images are predicted; 2 "
    f"cannot be read, see {listed}\n"
  )
  assert [row["path"] for row in rows(listed)] == ["bad.jpg", "empty.png"]
  got = rows(run / "predictions.csv")
  assert [row["path"] for row in got] == [f"deep/{i}.png" for i in range(COUNT)]
  classifier = classifier_lib.Classifier.load(run / "classifier")
  pixels = untrained_run.trained().experiment.dataset.test.images[:COUNT]
  want = classifier.predict(pixels)
  for i, row in enumerate(got):
    k = want.classes[i]
    assert row["predicted_class"] == classifier.class_names[k]
    assert float(row["probability"]) == pytest.approx(
      want.probabilities[i, k], rel=1e-4
    )
    assert float(row["novelty"]) == pytest.approx(want.novelty[i], abs=1e-5)
    nearest = want.support_indices[i, 0]
    assert row["support_1"] == classifier.support_bank.names[nearest]


def test_the_same_command_goes_on_where_it_stopped(saved, images, capsys):
  output = images.parent / "p.csv"
  flags = {"classifier": saved, "images": images, "output": output}
  execute(**flags)
  whole = output.read_bytes()
  capsys.readouterr()
  execute(**flags)
  assert "6 of 8 images have a row\n" in capsys.readouterr().out
  assert output.read_bytes() == whole
  # A row and a half are lost, and one more image can be read.
  lines = whole.splitlines(keepends=True)
  output.write_bytes(b"".join(lines[:-2]) + lines[-2][:30])
  Image.new("L", (20, 30)).save(images / "bad.jpg", "JPEG")
  execute(**flags)
  out = capsys.readouterr().out
  assert "4 of 8 images have a row\n" in out
  assert "image 4/4" in out
  assert "7 of 8 images are predicted; 1 cannot be read" in out
  got = [row["path"] for row in rows(output)]
  assert sorted(got) == ["bad.jpg", *(f"deep/{i}.png" for i in range(COUNT))]
  assert output.read_bytes().startswith(b"".join(lines[:-2]))


def test_a_killed_run_has_its_rows(saved, images, monkeypatch):
  output = images.parent / "p.csv"
  flags = {"classifier": saved, "images": images, "output": output}
  monkeypatch.setattr(
    classifier_lib.Classifier, "_batch_rows", lambda self, count: 2
  )
  shown = write_rows.ImageProgress.show

  def stop(self, step, metrics):
    shown(self, step, metrics)
    if step >= 4:
      raise KeyboardInterrupt

  monkeypatch.setattr(write_rows.ImageProgress, "show", stop)
  with pytest.raises(KeyboardInterrupt):
    execute(**flags)
  assert 0 < len(rows(output)) < COUNT
  monkeypatch.setattr(write_rows.ImageProgress, "show", shown)
  execute(**flags)
  assert len(rows(output)) == COUNT


def test_a_newer_checkpoint_makes_the_classifier_anew(run, capsys, monkeypatch):
  config = untrained_run.recipe()
  # Restoring takes its time.
  trained = untrained_run.trained()
  monkeypatch.setattr(source_lib.restore, "load", lambda *unused: trained)
  first = source_lib.from_run(config_lib.resolve(config), str(run)).make()
  capsys.readouterr()
  assert (
    source_lib.from_run(config_lib.resolve(config), str(run)).make().digest
    == first.digest
  )
  assert capsys.readouterr().out == ""
  settings = run / "classifier" / "classifier.json"
  os.utime(settings, (0, 0))
  source = source_lib.from_run(config_lib.resolve(config), str(run))
  assert source.class_names == first.class_names
  assert source.make().digest == first.digest
  assert "the checkpoint is newer" in capsys.readouterr().out
  assert settings.stat().st_mtime > 0
  text = settings.read_text()
  for old, new, reason in (
    ('"step": 10', '"step": 5', "the one there is of step 5"),
    ('"output_dim": 8', '"output_dim": 9', "section model of the recipe"),
    ('"version": 1', '"version": 9', "it cannot be used"),
  ):
    assert old in text
    settings.write_text(text.replace(old, new))
    assert source_lib._why_anew(
      config_lib.resolve(config), settings.parent
    ).startswith(reason)
  settings.write_text(text)
  (run / "classifier" / "bank.safetensors").write_bytes(b"")
  source_lib.from_run(config_lib.resolve(config), str(run)).make()
  assert "bank.safetensors is damaged" in capsys.readouterr().out


def test_classes_are_added_and_saved(saved, images, capsys):
  target = images.parent / "extended"
  new = images / "deep"
  assert execute(classifier=saved, add_class=[f"new={new}"], output=target) == 0
  out = capsys.readouterr().out
  assert out == (
    "class 'new' is added, supports: 6\n"
    f"classifier  {target} (11 classes, 26 supports)\n"
  )
  extended = classifier_lib.Classifier.load(target)
  assert extended.class_names[-1] == "new"
  assert extended.support_bank.names[-1] == str(new / "5.png")
  # For this time only, and beside what cannot be read.
  output = images.parent / "p.csv"
  execute(
    classifier=saved, add_class=[f"x={images}"], images=new, output=output
  )
  out = capsys.readouterr().out
  assert "class 'x' is added, supports: 6" in out
  assert f"left out: {images / 'empty.png'}: the file is empty" in out
  assert "the added classes are not saved" in out
  assert {row["predicted_class"] for row in rows(output)} == {"x"}


def test_a_fine_tuned_head_decides(run, images, capsys):
  trained = untrained_run.trained()
  config = untrained_run.recipe()
  with pytest.raises(ValueError, match="fine-tune first, with --task=finetune"):
    prepare(run, config=config, images=images, head="finetuned")
  size = trained.params["projection"]["fc1"]["bias"].size
  head = predictions.Head(
    np.zeros((size, 10), np.float32), np.arange(10, dtype=np.float32)
  )
  made = save_classifier.from_trained(trained, head=head)
  save_classifier.save(made, run / "finetuned")
  output = images.parent / "p.csv"
  execute(run, config=config, images=images, head="finetuned", output=output)
  assert "the head of the fine-tuned run decides" in capsys.readouterr().out
  assert {row["predicted_class"] for row in rows(output)} == {"9"}
  with pytest.raises(ValueError, match="'a' cannot be added to a fine-tuned"):
    prepare(classifier=run / "finetuned", add_class=[f"a={images}"], output="d")


def test_rows_of_images_that_are_gone_are_told(tmp_path, capsys):
  random_classifier.make().save(tmp_path / "saved")
  folder = tmp_path / "images"
  folder.mkdir()
  for name in "ab":
    Image.new("L", (12, 9)).save(folder / f"{name}.png")
  output = tmp_path / "p.csv"
  flags = {
    "classifier": tmp_path / "saved",
    "images": folder,
    "output": output,
  }
  execute(**flags)
  assert "not there any more" not in capsys.readouterr().out
  (folder / "a.png").unlink()
  execute(**flags)
  out = capsys.readouterr().out
  assert "p.csv keeps rows of images that are not there any more: 1; to" in out
  assert "1 of 1 images are predicted" in out
  assert len(rows(output)) == 2


@pytest.mark.parametrize("name", ["classifier", "finetuned"])
def test_the_runs_own_classifier_is_not_extended(tmp_path, images, name):
  workdir_lib.prepare(tmp_path, config_lib.resolve(random_classifier.recipe()))
  save_classifier.save(random_classifier.make(), tmp_path / name)
  flags = {"classifier": tmp_path / name, "add_class": [f"x={images}"]}
  with pytest.raises(ValueError, match="place of the run's own classifier"):
    prepare(**flags, output=tmp_path / "checkpoints" / ".." / name)
  assert prepare(**flags, output=tmp_path / "other")


def test_nothing_that_can_be_read_is_an_error(saved, tmp_path, capsys):
  folder = tmp_path / "images"
  folder.mkdir()
  (folder / "a.png").touch()
  (folder / "b.png").write_text("no image")
  flags = {"classifier": saved, "images": folder, "output": tmp_path / "p.csv"}
  with pytest.raises(errors.BadImageError, match=r"a\.png: .* none of the 2"):
    execute(**flags)
  assert len(rows(tmp_path / "p.unreadable.csv")) == 2
  flags |= {"add_class": [f"new={folder}"]}
  with pytest.raises(errors.BadImageError, match=r"'new', .*none of its 2"):
    execute(**flags)


@pytest.mark.parametrize(
  ("changes", "problem"),
  [
    ({}, "--images is missing"),
    ({"add_class": ["new"]}, "--add_class=new: give NAME=DIR"),
    ({"add_class": ["=here"]}, "--add_class==here: give NAME=DIR"),
    ({"add_class": ["a=here", "a=here"]}, "gives class 'a' twice"),
    ({"add_class": ["a=here"]}, "say where with --output=DIR"),
    ({"add_class": ["a=here"], "output": "p.csv"}, "a directory; predictions"),
    ({"add_class": ["3=here"], "images": "here"}, "'3' is there already"),
    ({"add_class": ["a=here"], "output": "here"}, "here is there and holds no"),
    ({"add_class": ["a=here"], "output": "/proc/a"}, "another directory with "),
    ({"images": "here", "output": "/proc/a.csv"}, "another file with --output"),
    ({"images": "nowhere"}, "--images=nowhere: there is no such"),
    ({"images": "here", "output": "p.txt"}, r"neither \.csv nor \.parquet"),
    ({"images": "here", "head": "finetuned"}, "is not fine-tuned: leave"),
    ({"images": "here", "classifier": "here"}, "holds no classifier"),
    ({"images": "p.csv", "output": "./p.csv"}, "where the predictions would"),
    ({"images": "link.csv", "output": "p.csv"}, "where the predictions would"),
    ({"images": "p.csv", "workdir": "."}, "p.csv is .*/predictions.csv, where"),
  ],
)
def test_what_a_user_can_get_wrong(
  saved, images, monkeypatch, changes, problem
):
  monkeypatch.chdir(images.parent)
  (images.parent / "here").symlink_to(images)
  (images.parent / "p.csv").write_text("path\nhere/empty.png\n")
  (images.parent / "p.csv.json").write_text("{}")
  (images.parent / "link.csv").symlink_to("p.csv")
  (images.parent / "predictions.csv").symlink_to("p.csv")
  (images.parent / "predictions.csv.json").write_text("{}")
  with pytest.raises((ValueError, FileNotFoundError), match=problem):
    prepare(**({"classifier": saved} | changes))


def test_supports_of_one_class_are_refused(saved, images, tmp_path):
  classifier = classifier_lib.Classifier.load(saved)
  support_bank = classifier.support_bank
  same = dataclasses.replace(support_bank, labels=support_bank.labels * 0)
  one = dataclasses.replace(classifier, support_bank=same)
  one.save(tmp_path / "one")
  flags = {"classifier": tmp_path / "one", "images": images}
  output = tmp_path / "p.csv"
  with pytest.raises(ValueError, match=r"20 supports are of 1 class \(0\)"):
    prepare(**flags, output=output)
  assert prepare(**flags, output=output, add_class=[f"a={images}"])
