"""The doctor finds what is wrong with a recipe and its data, and says so."""

import io
import re
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.cli import flags
from paws_jax.doctor import findings
from paws_jax.doctor import inspect
from paws_jax.doctor import near_duplicates
from paws_jax.doctor import view_sheet
from paws_jax.plan import memory
from paws_jax.runs import files
from paws_jax.tasks import doctor
from paws_jax.tasks import pretrain
from paws_jax.training import experiment
from tests import odd_files
from tests import random_classifier

pytestmark = pytest.mark.unoptimized

TRAIN = "python -m paws_jax.main --config=recipe.py"


def _image(seed, format="PNG", height=20, width=24):
  pixels = np.random.default_rng(seed).integers(
    0, 256, (height, width, 3), np.uint8
  )
  encoded = io.BytesIO()
  Image.fromarray(pixels).save(encoded, format)
  return encoded.getvalue()


def _write(root, *names, first_seed=0):
  for seed, name in enumerate(names, start=first_seed):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_image(seed))


@pytest.fixture
def root(tmp_path):
  """Three of each of two classes, ten unlabelled, two of each to test on."""
  root = tmp_path / "images"
  _write(root, *(f"{c}/{k}.png" for c in ("cat", "dog") for k in range(3)))
  _write(root, *(f"more/{k}.png" for k in range(10)), first_seed=100)
  names = [f"held_out/{c}/{k}.png" for c in ("cat", "dog") for k in range(2)]
  _write(root, *names, first_seed=200)
  return root


def _recipe(root, changes=None):
  config = config_lib.base()
  config.data.source = "folder"
  config.data.pipeline = "host"
  config.data.dir = str(root)
  config.data.unlabelled_dir = "more"
  config.data.test_dir = "held_out"
  config.data.labels_per_class = 0
  config.data.canvas_size = 32
  config.views.large.size = 16
  config.views.small.count = 1
  config.views.small.size = 8
  for view in (config.views.large, config.views.small):
    view.flip_probability = 0.0
    view.jitter_probability = 0.0
    view.grey_probability = 0.0
    view.blur_probability = 0.0
  config.views.eval_resize = 16
  config.support.classes_per_step = 0
  config.support.images_per_class = 3
  config.model.name = "resnet_tiny"
  config.model.output_dim = 8
  config.model.prediction_head = False
  config.optim.warmup_epochs = 1
  config.optim.start_lr = 0.01
  config.optim.peak_lr = 0.15
  config.optim.final_lr = 0.01
  config.train.batch_size = 8
  config.train.epochs = 4
  config.update_from_flattened_dict(changes or {})
  return config


@pytest.fixture
def quick(monkeypatch, tmp_path):
  """Leaves out what takes long, and is the same in every test."""
  nothing = memory.Memory(*[0] * 5)
  monkeypatch.setattr(memory, "memory", lambda _: nothing)
  monkeypatch.setattr(view_sheet, "draw", lambda *_: tmp_path / "views.png")


@pytest.fixture
def examine(capsys, tmp_path):
  """A function that returns the status and what is printed."""

  def run(root, changes=None, **options):
    status = doctor.run(
      _recipe(root, changes),
      str(tmp_path / "work"),
      train_command=TRAIN,
      **options,
    )
    return status, capsys.readouterr().out

  return run


def _findings(text):
  """The lines that say a problem or a warning."""
  return [
    line.strip()
    for line in text.splitlines()
    if line.startswith(("  PROBLEM: ", "  warning: "))
  ]


def _only(result, status, *words):
  """Checks the status and that there is one finding, with all these words."""
  got, text = result
  (finding,) = _findings(text)
  assert got == status, text
  assert finding.startswith("PROBLEM: " if status else "warning: ")
  for word in words:
    assert word in finding, finding
  counts = "1 problem, 0 warnings" if status else "0 problems, 1 warning"
  assert text.splitlines()[-1].startswith(counts + "; ")


@pytest.mark.slow
def test_a_healthy_folder(root, examine, tmp_path):
  status, text = examine(root)
  assert _findings(text) == [], text
  assert status == 0
  assert text.splitlines()[-1] == f"0 problems, 0 warnings; to train: {TRAIN}"
  # The steps reported are those of training.
  built = experiment.create(config_lib.resolve(_recipe(root)))
  assert built.total_steps == 8
  assert (
    "epoch: 16 images (with the labelled ones) in 2 steps of 8; 0 im" in text
  )
  assert "total: 4 epochs, 8 steps\n  few steps" in text
  assert "--config.train.epochs=500 makes about 1,000" in text
  assert "unlabelled images per step: 8 (1 per device), each with 2 " in text
  assert (
    "2 classes x 3 images = 6 (1 per device, with 2 rows of padding in total), "
    "each with 1 view\n" in text
  )
  assert (
    "data set 'images': 16 training images, 6 of them with a label; 2 classes\n"
    "  labels used in training: 6 (all labels)\n" in text
  )
  assert "  label used  label unused          test\n" in text
  assert re.search(r"'cat' +3 +0 +2\n +'dog' +3 +0 +2\n", text)
  assert "training images without a label: 10\n" in text
  assert re.search("memory needed per device, about [1-9]", text)
  sheet = np.asarray(Image.open(tmp_path / "work" / "views.png"))
  assert sheet.shape[0] > 300
  # Nothing but the sheet, so that a run may still begin here.
  names = {path.name for path in (tmp_path / "work").iterdir()}
  assert names == {"views.png", files.RECORD}


@pytest.mark.usefixtures("quick")
def test_views_in_a_bucket(root, monkeypatch):
  asked = []

  def draw(*arguments):
    asked.append(arguments[-1])
    return asked[0] / "views.png"

  monkeypatch.setattr(view_sheet, "draw", draw)
  assert doctor.run(_recipe(root), "gs://bucket/run", train_command=TRAIN) == 0
  # pathlib would make it "gs:/bucket/run", a directory of this machine.
  assert list(map(str, asked)) == ["gs://bucket/run"]


@pytest.mark.usefixtures("quick")
def test_a_bucket_that_is_closed(root, examine, monkeypatch):
  class OpError(Exception):
    """As TensorFlow's, which is none of OSError's."""

  def refuse(*_):
    raise OpError("403: no access")

  errors = types.SimpleNamespace(OpError=OpError)
  fake = types.SimpleNamespace(errors=errors)
  monkeypatch.setitem(sys.modules, "tensorflow", fake)
  monkeypatch.setattr(view_sheet, "draw", refuse)
  _only(examine(root), 1, "403: no access")


@pytest.mark.slow
def test_images_in_memory(root, examine):
  changes = {
    "data.source": "digits",
    "data.pipeline": "memory",
    "data.unlabelled_dir": "",
    "data.test_dir": "",
    "data.labels_per_class": 3,
    "data.include_labelled": False,
    "data.image_size": 16,
    "views.mean": (0.3,),
    "views.std": (0.4,),
  }
  status, text = examine(root, changes)
  assert status == 0, text
  assert _findings(text) == []
  assert "epoch: 1,407 images (without the labelled ones) in 175 st" in text
  assert re.search(r"'7' +3 +140 +36\n", text)


@pytest.mark.usefixtures("quick")
def test_a_manifest(root, examine):
  rows = [f"cat/{k}.png,{label}," for k, label in enumerate(("a", "a", "b"))]
  rows += ["dog/0.png,b,", "dog/1.png,A,", "dog/2.png,,", "more/1.png,b,val"]
  (root / "m.csv").write_text("path,label,split\n" + "\n".join(rows))
  changes = {
    "data.manifest": "m.csv",
    "data.unlabelled_dir": "",
    "data.test_dir": "",
    "support.images_per_class": 1,
    "train.batch_size": 6,
  }
  status, text = examine(root, changes)
  assert status == 1
  names, batch = _findings(text)
  assert "train.batch_size is 6, which 8 devices do not divide" in batch
  assert "the classes 'A' and 'a' differ only in case" in names


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("part", ["cat", "more"])
def test_unreadable_images_are_named(root, examine, part):
  (root / part / "1.png").write_bytes(b"<html>")
  kind = "labelled" if part == "cat" else "unlabelled"
  what = f"1 {kind} image cannot be read: {part}/1.png (it is text"
  _only(examine(root), 1, what, "--config.data.on_bad_image=skip")
  skipped = examine(root, {"data.on_bad_image": "skip"})
  _only(skipped, 0, what, "others replace them")


@pytest.mark.usefixtures("quick")
def test_twelve_bits_in_files_of_sixteen(root, examine):
  for path in root.rglob("*.png"):
    gray = np.asarray(Image.open(path).convert("L")).astype(np.uint16)
    Image.fromarray(gray * 16).save(path)
  result = examine(root)
  _only(result, 0, "20 images without a value above", "data.white_level=4095")
  status, text = examine(root, {"data.white_level": 4095})
  assert (status, _findings(text)) == (0, [])


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "huge"])
def test_files_without_an_end_are_named(root, examine, kind):
  (root / "cat" / "1.png").unlink()
  odd_files.make(root / "cat" / "1.png", kind)
  what = "1 labelled image cannot be read: cat/1.png (it cannot be read (it "
  _only(examine(root), 1, what, odd_files.KINDS[kind])


@pytest.mark.usefixtures("quick")
def test_a_test_image_cannot_be_skipped(root, examine):
  (root / "held_out" / "dog" / "1.png").write_bytes(_image(1)[:99])
  result = examine(root, {"data.on_bad_image": "skip"})
  _only(result, 1, "1 test image cannot be read: dog/1.png (damaged")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("part", ["cat", "held_out/dog"])
def test_an_image_too_narrow_to_be_evaluated(root, examine, part):
  (root / part / "1.png").write_bytes(_image(1, height=1, width=9000))
  finding = "1.png (its 1 x 9000 pixels are too narrow to be resized to a short"
  _only(examine(root), 1, finding)
  # An unlabelled one is only trained on.
  (root / part / "1.png").write_bytes(_image(1))
  (root / "more" / "1.png").write_bytes(_image(2, height=1, width=9000))
  assert examine(root)[0] == 0


@pytest.mark.usefixtures("quick")
def test_all_unreadable_images_are_named(root, examine):
  for k in range(7):
    (root / "more" / f"{k}.png").write_bytes(b"<html>")
  result = examine(root)
  _only(result, 1, "7 unlabelled images cannot be read, listed below. Repair")
  lines = [line.strip() for line in result[1].splitlines()]
  for k in range(7):
    name = f"more/{k}.png"
    assert [line.startswith(f"{name} (it is text") for line in lines].count(1)


@pytest.mark.usefixtures("quick")
def test_files_of_formats_that_are_not_read(root, examine):
  (root / "cat" / "notes.txt").write_text("")
  status, text = examine(root)
  assert (status, _findings(text)) == (0, [])
  assert "1 file in other formats among the images: 1 .txt\n" in text
  for k in range(50):
    (root / "cat" / f"{k}.HEIC").write_bytes(b"")
  (root / "held_out" / "cat" / "README").write_bytes(b"")
  result = examine(root)
  _only(result, 0, "50 .heic files are ignored: to use them, convert")
  listed = "52 files in other formats among the images: 50 .heic, 1 without a "
  assert listed + "suffix, 1 .txt\n" in result[1]


@pytest.mark.usefixtures("quick")
def test_a_class_without_a_readable_image(root, examine):
  for k in range(3):
    (root / "dog" / f"{k}.png").write_bytes(b"")
  status, text = examine(root, {"data.on_bad_image": "skip"})
  assert status == 1
  warning, problem = _findings(text)
  assert "3 labelled images cannot be read" in warning
  assert "1 class without a readable labelled image: 'dog'" in problem


@pytest.mark.usefixtures("quick")
def test_small_and_large_images_are_counted(root, examine):
  (root / "cat" / "0.png").write_bytes(_image(7, height=15))
  (root / "more" / "0.png").write_bytes(_image(8, width=33))
  (root / "more" / "1.png").write_bytes(_image(9, width=32, height=16))
  status, text = examine(root)
  assert status == 0
  assert "1 image with a side shorter than views.large.size = 16" in text
  assert "1 image with a side longer than data.canvas_size = 32" in text


@pytest.mark.usefixtures("quick")
def test_canvases_smaller_than_crops(root, examine):
  # They do no harm to images that fit.
  changes = {"data.canvas_size": 24, "views.large.size": 30}
  changes["views.eval_resize"] = 30
  assert _findings(examine(root, changes)[1]) == []
  (root / "more" / "0.png").write_bytes(_image(8, width=33))
  words = "views.large.size = 30. Raise data.canvas_size, best to 60"
  _only(examine(root, changes), 0, words)


@pytest.mark.usefixtures("quick")
def test_one_level_above_the_classes(root, examine):
  for part in ("train", "test"):
    shutil.copytree(root / "held_out", root / "parts" / part)
  # Another file, as the same would be a finding of its own.
  _write(root, *(f"parts/train/cat/{k}.png" for k in range(2)), first_seed=300)
  changes = {"data.unlabelled_dir": "", "data.test_dir": ""}
  changes["data.dir"] = str(root / "parts")
  status, text = examine(root, changes)
  assert status == 1
  assert (
    "PROBLEM: the classes 'test', 'train' look like parts of a data set, one "
    "level above the classes" in text
  )
  assert "All images lie one level deeper, in 'cat', 'dog'" in text


@pytest.mark.usefixtures("quick")
def test_one_class(root, examine):
  _write(root, *(f"top/images/cat/{k}.png" for k in range(9)), first_seed=300)
  changes = {
    "data.unlabelled_dir": "",
    "data.dir": str(root / "top"),
    "data.test_dir": "",
  }
  status, text = examine(root, changes)
  assert status == 1
  problem, *others = _findings(text)[::-1]
  assert "top has 1 class, 'images', but needs at least 2" in problem
  assert "All images lie one level deeper, in 'cat': if these" in problem
  # Said once, although it cannot be built for the same reason.
  assert len([line for line in others if "PROBLEM" in line]) == 0
  assert "because of a problem above" in text


@pytest.mark.usefixtures("quick")
def test_a_second_call_reports_the_same_without_reading(
  root, examine, monkeypatch
):
  shutil.copy(root / "cat/0.png", root / "held_out/cat/0.png")
  (root / "more" / "1.png").write_bytes(_image(2, height=1, width=90))
  _, first = examine(root)

  def refuse(*_):
    raise AssertionError("an image was read")

  monkeypatch.setattr(inspect, "check_image", refuse)
  _, second = examine(root)
  known = [line for line in second.splitlines() if "not read again" in line]
  assert known[0].startswith("  20 images unchanged since an earlier call")
  assert known[0].endswith("paws_jax/doctor.sqlite3)")
  lines = [line for line in second.splitlines() if line not in known]
  assert lines == first.splitlines()


@pytest.mark.usefixtures("quick")
def test_unlabelled_images_as_a_class(root, examine):
  result = examine(root, {"data.unlabelled_dir": ""})
  assert result[0] == 0
  (root / "more").rename(root / "Unlabelled")
  result = examine(root, {"data.unlabelled_dir": ""})
  _only(
    result, 0, "the class name 'Unlabelled' looks like a part of a data set"
  )


@pytest.mark.usefixtures("quick")
def test_classes_with_few_labels(root, examine):
  (root / "dog" / "2.png").unlink()
  _write(root, "more/99.png", first_seed=400)
  few = "1 of 2 classes have fewer labelled images than support.images_per"
  _only(examine(root), 1, few, "'dog' (2)", "support.with_replacement")
  status, text = examine(root, {"support.with_replacement": True})
  assert status == 0
  assert few in text
  assert _findings(text) == []


@pytest.mark.usefixtures("quick")
def test_many_classes_are_summed_up(root, examine):
  names = [f"k{k}/{n}.png" for k in range(31) for n in range(2)]
  _write(root, *names, "k7/more.png", first_seed=500)
  changes = {"support.images_per_class": 2}
  status, text = examine(root, changes)
  assert status == 0, text
  assert (
    "label used: 69 images; per class at least 2 ('k0'), at most 3 ('cat'), "
    "median 2\n" in text
  )
  assert "'k7'" not in text


@pytest.mark.usefixtures("quick")
def test_images_that_are_trained_and_tested_on(root, examine):
  shutil.copy(root / "cat/0.png", root / "held_out/cat/0.png")
  shutil.copy(root / "cat/1.png", root / "held_out/cat/1.png")
  _only(
    examine(root),
    0,
    "2 images among both the labelled and the test images: 'cat/0.png' = 'cat",
  )


@pytest.mark.usefixtures("quick")
def test_many_duplicates_are_listed(root, examine):
  _write(root, *(f"cat/x{k:02}.png" for k in range(22)), first_seed=600)
  for k in range(22):
    name = f"cat/x{k:02}.png"
    shutil.copy(root / name, root / "held_out" / name)
  result = examine(root)
  _only(result, 0, "'cat/x19.png' = 'cat/x19.png' and 2 more. Accuracy on")


@pytest.mark.usefixtures("quick")
def test_one_image_under_two_labels(root, examine):
  shutil.copy(root / "cat/0.png", root / "dog/1.png")
  _only(
    examine(root),
    0,
    "1 labelled image with equal contents and another label: 'cat/0.png' = 'd",
  )


@pytest.mark.usefixtures("quick")
def test_without_images_to_test_on(root, examine):
  shutil.rmtree(root / "held_out")
  result = examine(root, {"data.test_dir": ""})
  _only(result, 0, "neither test nor validation images")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"train.batch_size": 24}, "train.batch_size is 24 but there are 16 image"),
    ({"train.batch_size": 12}, "batch_size is 12, which 8 devices do not"),
    ({"support.classes_per_step": 3}, "support.classes_per_step is 3 but"),
    (
      {
        "support.sampling": "uniform",
        "support.batch_size": 7,
        "support.with_replacement": False,
      },
      "support.batch_size asks for 7 labelled images a step, but there are 6",
    ),
    ({"data.labels_per_class": 4}, "data.labels_per_class = 4"),
    ({"model.name": "resnet9"}, "model.name is 'resnet9'; known are"),
    ({"views.eval_resize": 15}, "views.eval_resize"),
    ({"train.steps_per_call": 3}, "train.steps_per_call is 3, which does not"),
    ({"data.dir": "/nowhere"}, "data.dir = '/nowhere' is not a directory"),
    ({"optim.peak_lr": -1.0}, "optim.peak_lr is -1.0: it must be"),
  ],
)
def test_what_training_refuses_is_one_problem(root, examine, changes, words):
  # A learning rate far from the rule would be a finding of its own.
  changes = {"optim.name": "adamw"} | changes
  _only(examine(root, changes), 1, words)


@pytest.mark.usefixtures("quick")
def test_one_problem_does_not_hide_another(root, examine):
  (root / "cat" / "1.png").write_bytes(b"<html>")
  changes = {
    "support.images_per_class": 4,
    "train.batch_size": 20,
    "optim.peak_lr": 6.4,
  }
  status, text = examine(root, changes)
  assert status == 1
  few, bad, small, odd, rate = _findings(text)
  assert "have fewer labelled images than" in few
  assert "cat/1.png" in bad
  assert "there are 16 images to train on" in small
  assert "20, which 8 devices do not divide" in odd
  assert rate.startswith("warning: learning rate: optim.peak_lr is 6.4; the")
  assert text.splitlines()[-1] == (
    "4 problems, 1 warning; fix the problems above and run this command again"
  )


@pytest.mark.usefixtures("quick")
def test_data_are_looked_at_whatever_the_recipe(root, examine):
  (root / "cat" / "1.png").write_bytes(b"<html>")
  status, text = examine(root, {"train.epochs": 0})
  assert status == 1
  field, bad = _findings(text)
  assert "train.epochs is 0" in field
  assert "cat/1.png" in bad


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
  ("peak", "warned"), [(0.08, False), (0.3, False), (0.07, True), (0.31, True)]
)
def test_a_learning_rate_far_from_the_rule(root, examine, peak, warned):
  # 6.4 * (8 / 4096)^0.6 = 0.152.
  status, text = examine(root, {"optim.peak_lr": peak})
  assert status == 0
  assert "6.4 x (batch_size / 4096)^0.6, gives 0.15 for" in text
  assert bool(_findings(text)) == warned


@pytest.mark.usefixtures("quick")
def test_other_optimisers_have_no_rule(root, examine):
  _, text = examine(root, {"optim.name": "sgd", "optim.peak_lr": 0.001})
  assert "learning rate" not in text


@pytest.mark.usefixtures("quick")
def test_more_memory_than_there_is(root, examine, monkeypatch):
  needed = memory.Memory(2**30, 2**30, 0, 0, 2**29)
  monkeypatch.setattr(memory, "memory", lambda _: needed)
  monkeypatch.setattr(memory, "device_memory", lambda _: 2**31)
  _only(
    examine(root), 0, "an estimated 2.50 GiB per device exceeds the 2.00 GiB"
  )
  monkeypatch.setattr(memory, "device_memory", lambda _: None)
  assert "the device does not report it" in examine(root)[1]


@pytest.mark.usefixtures("quick")
def test_thumbnails_of_a_network_drive_are_left_aside_and_said(root, examine):
  for name in ("cat/@eaDir/0.png/x.png", "@eaDir/0.png/x.png"):
    _write(root, name)
  status, text = examine(root)
  assert status == 0
  assert _findings(text) == []
  assert "6 of them with a label; 2 classes" in text
  assert "2 folders '@eaDir' with 2 images. Rename a folder" in text


@pytest.mark.usefixtures("quick")
def test_doubtful_labels_are_warned_of(root, examine):
  (root / "cat").rename(root / "cat|dog")
  (root / "held_out/cat").rename(root / "held_out/cat|dog")
  words = ("1 of 2 classes look like several labels in one ('cat|dog')",)
  _only(examine(root), 0, *words)


@pytest.mark.usefixtures("quick")
def test_a_missing_label_is_a_problem_unless_it_is_a_name(root, examine):
  for place in (root, root / "held_out"):
    (place / "cat").rename(place / "nan")
  status, text = examine(root)
  assert status == 1
  assert "--config.data.real_labels=nan" in _findings(text)[0]
  status, text = examine(root, {"data.real_labels": "nan"})
  assert (status, _findings(text)) == (0, [])


@pytest.mark.usefixtures("quick")
def test_copies_of_one_class_are_reported(root, examine):
  shutil.copy(root / "cat" / "0.png", root / "cat" / "2.png")
  words = ("1 labelled image with the contents of another one of the same",)
  _only(examine(root), 0, *words, "'cat/0.png' = 'cat/2.png'")


@pytest.mark.usefixtures("quick")
def test_names_that_are_not_text(root, examine):
  (root / "cat" / "1.png").rename(root / "cat" / "1\udcff.png")
  (root / "cat" / "1\udcff.png").write_bytes(b"<html>")
  _only(examine(root), 1, "cat/1\\udcff.png")


@pytest.mark.usefixtures("quick")
def test_time_is_measured_on_request_if_training_can_work(
  root, examine, monkeypatch
):
  timed = []
  monkeypatch.setattr(
    doctor.duration, "training_time", lambda *arguments: timed.append(arguments)
  )
  assert (
    "to learn how long training takes, add --time_steps" in (examine(root)[1])
  )
  examine(root, {"train.batch_size": 24}, time_steps=True)
  assert not timed
  assert "--time_steps" not in examine(root, time_steps=True)[1]
  ((_, experiment_built),) = timed
  assert experiment_built.total_steps == 8


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["host", "memory"])
def test_the_time_of_training(root, examine, monkeypatch, pipeline):
  monkeypatch.setattr(doctor.duration.step_times, "_SECONDS", 0.1)
  changes = {"eval.every_steps": 2, "train.steps_per_call": 2}
  if pipeline == "memory":
    changes |= {
      "data.source": "digits",
      "data.pipeline": "memory",
      "data.unlabelled_dir": "",
      "data.test_dir": "",
      "data.labels_per_class": 3,
      "data.image_size": 16,
      "views.mean": (0.3,),
      "views.std": (0.4,),
    }
  status, text = examine(root, changes, time_steps=True)
  assert status == 0, text
  steps = 8 if pipeline == "host" else 716
  assert re.search(
    rf"training takes about [\d.]+ \w+: {steps} steps and {steps // 2} "
    r"evaluations of [\d.]+ \w+, on this machine",
    text,
  )
  assert re.search(
    r"compiling .* takes [\d.]+ s; a step takes [\d.]+ m?s", text
  )


@pytest.mark.usefixtures("quick")
@pytest.mark.slow
def test_an_image_that_ends_the_timing_is_reported(root, examine, monkeypatch):
  original = doctor.duration.step_times.measure

  def measure(built):
    for path in (root / "more").iterdir():
      path.write_bytes(b"<html>")
    return original(built)

  monkeypatch.setattr(doctor.duration.step_times, "measure", measure)
  status, text = examine(root, time_steps=True)
  assert status == 1
  assert re.search(r"PROBLEM: more/\d.png: it is text", text)


@pytest.mark.parametrize(
  "task",
  [
    ["--task=doctor"],
    ["-task", "doctor"],
    ["--time_steps", "--task=doctor"],
    ["--notime_steps", "-time_steps=true", "--task=doctor"],
    ["--task=doctor", "--classifier=runs/photos/classifier"],
    ["--task=doctor", "-classifier", "runs/photos/classifier"],
  ],
)
def test_the_command_to_train(task):
  arguments = ["--config=a b.py", *task, "--workdir=w"]
  for program, command in (
    ("/env/paws_jax/main.py", "python -m paws_jax.main"),
    ("/env/bin/paws-jax", "paws-jax"),
    ("paws-jax.exe", "paws-jax"),
  ):
    assert flags.train_command([program, *arguments]) == (
      f"{command} '--config=a b.py' --workdir=w"
    )


@pytest.mark.slow
def test_the_task_on_the_command_line(tmp_path):
  command = [sys.executable, "-m", "paws_jax.main", "--task=doctor"]
  command += ["--config=tests/tiny_recipe.py", f"--workdir={tmp_path}"]
  for override, status in (("labels_per_class=2", 0), ("split_seed=-1", 1)):
    result = subprocess.run(
      [*command, f"--config.data.{override}"],
      capture_output=True,
      text=True,
      timeout=600,
      check=False,
    )
    assert result.returncode == status, result.stdout + result.stderr
  assert "PROBLEM: data.split_seed is -1" in result.stdout


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
  ("changes", "step", "status", "words"),
  [
    ({}, 1, 0, "holds this run at step 1: it is continued"),
    ({}, 8, 0, "holds this run, which has taken all its steps: training only"),
    ({"log.every_steps": 9}, 8, 0, "has taken all its steps"),
    ({"train.epochs": 3}, 8, 1, r"another recipe: .*train\.epochs: 4 there, 3"),
    (
      {"optim.peak_lr": 0.5},
      1,
      1,
      r"another recipe: .*peak_lr: 0\.15 there, 0",
    ),
    ({"seed": 3}, 1, 1, "another recipe: .*seed: 0 there, 3"),
    (None, 1, 1, "the labelled images or the data have changed"),
  ],
)
def test_a_run_that_is_there_is_compared(
  root, examine, tmp_path, changes, step, status, words
):
  work = tmp_path / "work"
  pretrain.prepare(_recipe(root), str(work))
  # Without a checkpoint there is no run.
  assert "this run" not in examine(root)[1]
  (work / "checkpoints" / str(step)).mkdir(parents=True)
  if changes is None:
    _write(root, "dog/9.png", first_seed=900)
  found, text = examine(root, changes)
  assert found == status, text
  line = re.search(rf"({words}).*", text)
  assert line, text
  assert (f"PROBLEM: {work}" in text) == ("another recipe" in words)
  assert text.count("PROBLEM: ") == status
  # Training says the same.
  if status:
    with pytest.raises(errors.WorkdirError) as refusal:
      pretrain.prepare(_recipe(root, changes), str(work))
    assert " ".join(str(refusal.value).splitlines()) in text


def _near_copy(path, to):
  """Writes an image again, with other bytes and nearly the same pixels."""
  Image.open(path).save(to, quality=95)


@pytest.fixture(scope="module")
def classifier():
  return random_classifier.make()


@pytest.fixture
def saved(classifier, monkeypatch):
  """A directory of a classifier, which is compiled once for all tests."""

  def load(directory):
    assert directory == "saved"
    return classifier

  kind = near_duplicates.classifier_lib.Classifier
  monkeypatch.setattr(kind, "load", load)
  return "saved"


@pytest.mark.usefixtures("quick")
def test_near_duplicates_are_found_with_a_classifier(root, examine, saved):
  _near_copy(root / "cat" / "0.png", root / "held_out" / "cat" / "held.bmp")
  _near_copy(root / "dog" / "1.png", root / "cat" / "near.bmp")
  _, text = examine(root)
  assert "near" not in "".join(_findings(text))
  status, text = examine(root, classifier=saved)
  assert status == 0
  assert "22 images compared by" in text
  labels, held_out = _findings(text)
  assert held_out.startswith(
    "warning: 1 pair of near duplicates among both the"
  )
  assert "labelled and the test images" in held_out
  assert "'cat/0.png' and 'cat/held.bmp'" in held_out
  assert "remove copies from one of the two" in held_out
  assert "1 pair of near duplicates among the labelled images" in labels
  assert "1 have different labels" in labels
  assert "least similar to all others" in text


@pytest.mark.usefixtures("quick")
def test_equal_files_have_a_finding_of_their_own(root, examine, saved):
  shutil.copy(root / "cat" / "0.png", root / "held_out" / "cat" / "copy.png")
  _, text = examine(root, classifier=saved)
  (finding,) = _findings(text)
  assert finding.startswith("warning: 1 image among both the labelled and")
  assert "no near duplicates" in text


@pytest.mark.usefixtures("quick")
def test_a_classifier_that_is_none_is_a_problem(root, examine):
  _only(examine(root, classifier=str(root)), 1, "PROBLEM", "no classifier")


def test_near_duplicates_of_images_in_memory(monkeypatch, capsys, saved):
  report = findings.Report()
  pixels = random_classifier.pixels((9, 12, 1), 8)
  pixels[5] = np.maximum(pixels[2], 1)
  group = inspect.Group(
    name="labelled",
    images=inspect.ArrayImages("train", pixels),
    rows=np.arange(8),
    labels=np.arange(8, dtype=np.int32) % 2,
    num_images=8,
  )
  checks = {
    "labelled": [inspect.ImageCheck(bytes([i]), 9, 12, "") for i in range(8)]
  }
  near_duplicates.check(report, [group], checks, saved)
  out = capsys.readouterr().out
  assert "'train row 2' and 'train row 5'" in out
  monkeypatch.setattr(near_duplicates, "MOST_IMAGES", 3)
  near_duplicates.check(report, [group], checks, saved)
  assert "3 images compared by" in capsys.readouterr().out
