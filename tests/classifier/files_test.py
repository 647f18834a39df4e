"""Classifiers on disk: what does not belong together, who else is there."""

import concurrent.futures
import dataclasses
import json

import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files as files_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import save_classifier
from tests import odd_files
from tests import random_classifier


def with_bank(**changes):
  made = random_classifier.make()
  support_bank = dataclasses.replace(made.support_bank, **changes)
  return dataclasses.replace(made, support_bank=support_bank)


def with_head(**changes):
  made = random_classifier.make(head=True)
  head = dataclasses.replace(made.head, **changes)
  return dataclasses.replace(made, head=head)


def changed(**changes):
  return dataclasses.replace(random_classifier.make(), **changes)


@pytest.mark.parametrize(
  ("make", "problem"),
  [
    (lambda: changed(class_names=("a", "a", "b")), "3 class_names are not all"),
    (lambda: changed(class_names=("a", "b")), "from 0 to 2, and there are 2"),
    (
      lambda: changed(temperature=0.0),
      r"temperature is 0.0: it must be in",
    ),
    (
      lambda: changed(temperature=np.inf),
      "holds Infinity",
    ),
    (lambda: changed(batch_size=0), "batch_size is 0: it must be at"),
    (
      lambda: with_bank(labels=np.arange(7, dtype=np.int32) - 3),
      "labels from -3 to 3",
    ),
    (lambda: with_bank(labels=np.zeros(7, np.float32)), "labels float32"),
    (
      lambda: with_bank(embeddings=np.zeros((7, 5), np.float32)),
      r"embeddings \[7, 5\] and its encoder \[n, 6\]",
    ),
    (
      lambda: with_head(kernel=np.zeros((3, 64), np.float32)),
      r"kernel \[3, 64\] and bias \[3\] instead of \[64, 3\] and \[3\]",
    ),
    (
      lambda: with_head(bias=np.zeros(2, np.float32)),
      r"bias \[2\] instead",
    ),
  ],
)
def test_what_does_not_belong_together_is_refused(
  tmp_path, make, problem, monkeypatch
):
  with monkeypatch.context() as patch:
    # As an earlier version, or somebody else, has written it.
    patch.setattr(files_lib, "_check_readable", lambda *unused: None)
    make().save(tmp_path / "saved")
  with pytest.raises(errors.ClassifierError, match=problem):
    classifier_lib.Classifier.load(tmp_path / "saved")


@pytest.mark.parametrize(
  "make",
  [
    lambda: changed(temperature=0.0),
    lambda: changed(temperature=np.float32(np.nan)),
    lambda: changed(class_names=("a", "\ud800", "b")),
    lambda: changed(class_names=(1, 2, 3)),
    lambda: changed(origin={"step": 10**400}),
    lambda: changed(origin={"dataset": object()}),
    lambda: changed(origin=None),
    lambda: changed(model=None),
    lambda: changed(variables={}),
    lambda: changed(variables=None),
    lambda: changed(support_bank=None),
    lambda: changed(preprocessing=None),
    lambda: changed(
      preprocessing=random_classifier.settings(std=(0.0,)),
    ),
    lambda: with_bank(embeddings=np.full((7, 6), np.inf, np.float32)),
    lambda: with_bank(names=tuple(range(7))),
    lambda: with_head(kernel=np.full((64, 3), np.nan, np.float32)),
  ],
  ids=range(16),
)
def test_what_could_not_be_read_again_replaces_nothing(tmp_path, make):
  before = random_classifier.make()
  before.save(tmp_path / "saved")
  with pytest.raises(errors.ClassifierError, match=r"could not be|cannot be"):
    make().save(tmp_path / "saved")
  assert [path.name for path in tmp_path.iterdir()] == ["saved"]
  loaded = classifier_lib.Classifier.load(tmp_path / "saved")
  assert loaded.digest == before.digest


def test_scalars_of_numpy_are_saved_as_numbers(tmp_path):
  made = changed(temperature=np.float32(0.25), origin={"step": np.int64(3)})
  made.save(tmp_path / "saved")
  loaded = classifier_lib.Classifier.load(tmp_path / "saved")
  assert (loaded.temperature, loaded.origin) == (0.25, {"step": 3})


@pytest.mark.parametrize("there", [True, False])
def test_a_link_to_a_classifier_stays_a_link(tmp_path, there):
  link, target = tmp_path / "link", tmp_path / "disk" / "saved"
  link.symlink_to(target)
  if there:
    random_classifier.make(seed=1).save(target)
  made = random_classifier.make()
  made.save(link)
  assert link.is_symlink()
  assert classifier_lib.Classifier.load(target).digest == made.digest
  assert classifier_lib.Classifier.load(link).digest == made.digest


@pytest.mark.parametrize(
  ("name", "value"),
  [
    ("model", None),
    ("origin", ["step"]),
    ("batch_size", "3"),
    ("batch_size", True),
    ("class_names", "abc"),
    ("class_names", [1, 2, 3]),
  ],
)
def test_settings_of_another_kind_are_refused(tmp_path, name, value):
  random_classifier.make().save(tmp_path)
  path = tmp_path / files_lib.SETTINGS
  settings = json.loads(path.read_text()) | {name: value}
  path.write_text(json.dumps(settings))
  with pytest.raises(errors.ClassifierError, match=name):
    files_lib.settings_in(tmp_path)
  del settings[name]
  path.write_text(json.dumps(settings))
  with pytest.raises(errors.ClassifierError, match=name):
    files_lib.settings_in(tmp_path)


def test_a_white_level_is_kept(tmp_path):
  plain = random_classifier.make()
  twelve = random_classifier.make(white_level=4095)
  twelve.save(tmp_path)
  loaded = classifier_lib.Classifier.load(tmp_path)
  assert loaded.preprocessing.white_level == 4095
  assert loaded.digest == twelve.digest != plain.digest
  # As every classifier was before there was one.
  assert b"white_level" not in files_lib.pack(vars(plain))[files_lib.SETTINGS]
  path = tmp_path / files_lib.SETTINGS
  path.write_text(path.read_text().replace("4095", "70000"))
  with pytest.raises(errors.ClassifierError, match="white_level is 70000"):
    classifier_lib.Classifier.load(tmp_path)


@pytest.mark.parametrize("kind", ["pipe", "device", "directory"])
@pytest.mark.parametrize("name", [files_lib.SETTINGS, files_lib.BANK])
def test_what_may_have_no_end_is_not_read(tmp_path, name, kind):
  random_classifier.make().save(tmp_path)
  (tmp_path / name).unlink()
  odd_files.make(tmp_path / name, kind)
  problem = rf"{name} cannot be read \(it is {odd_files.KINDS[kind]}"
  with pytest.raises(errors.ClassifierError, match=problem):
    files_lib.read(tmp_path)


def test_a_users_file_is_not_deleted(tmp_path):
  classifier = random_classifier.make()
  classifier.save(tmp_path / "saved")
  mine = tmp_path / "saved" / "notes.txt"
  mine.write_text("mine")
  # An error that the command line knows also while a task runs.
  with pytest.raises(errors.WorkdirError, match=r"\(notes\.txt\), and is repl"):
    classifier.save(tmp_path / "saved")
  assert mine.read_text() == "mine"
  mine.unlink()
  classifier.save(tmp_path / "saved")


def test_a_crash_between_two_renames_loses_nothing(tmp_path):
  classifier = random_classifier.make()
  saved = tmp_path / "saved"
  classifier.save(saved)
  for read in (
    lambda: classifier_lib.Classifier.load(saved).digest,
    lambda: files_lib.settings_in(saved) and classifier.digest,
  ):
    saved.rename(tmp_path / ".saved.old")
    assert read() == classifier.digest
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_several_may_write_at_once(tmp_path):
  files = files_lib.pack(vars(random_classifier.make()))
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    writes = [
      pool.submit(files_lib.write, tmp_path / "saved", files) for _ in range(24)
    ]
  for write in writes:
    write.result()
  assert [path.name for path in tmp_path.iterdir()] == ["saved"]
  assert classifier_lib.Classifier.load(tmp_path / "saved")


def test_one_may_read_what_others_write(tmp_path):
  saved = tmp_path / "saved"
  made = [random_classifier.make(), random_classifier.make(seed=1)]
  versions = [files_lib.pack(vars(classifier)) for classifier in made]
  digests = {classifier.digest for classifier in made}
  files_lib.write(saved, versions[0])
  with concurrent.futures.ThreadPoolExecutor(3) as pool:
    writes = [
      pool.submit(files_lib.write, saved, versions[i % 2]) for i in range(24)
    ]
    while not all(write.done() for write in writes):
      assert classifier_lib.Classifier.load(saved).digest in digests
  for write in writes:
    write.result()


def test_the_digest_does_not_depend_on_the_order_of_fields():
  """A classifier just made and the same one loaded are one for `predict`."""
  made = random_classifier.make()
  turned = dict(reversed(made.model.items()))
  assert list(turned) != list(made.model)
  assert dataclasses.replace(made, model=turned).digest == made.digest


@pytest.mark.parametrize("name", ["classifier", "finetuned"])
@pytest.mark.parametrize("there", [True, False])
def test_the_place_of_a_runs_classifier_is_not_taken(tmp_path, name, there):
  run = tmp_path / "run"
  recipe = config_lib.resolve(random_classifier.recipe())
  workdir_lib.prepare(run, recipe)
  if there:
    save_classifier.save(random_classifier.make(), run / name)
  before = sorted(run.rglob("*"))
  for place in (run / name, f"{run}/checkpoints/../{name}/"):
    with pytest.raises(errors.ClassifierError, match="the run's own class"):
      random_classifier.make(seed=1).save(place)
  assert sorted(run.rglob("*")) == before
  # Beside it there is room.
  random_classifier.make(seed=1).save(run / "mine")


def test_a_task_keeps_a_classifier_that_is_not_its_own(tmp_path, capsys):
  place = tmp_path / "run" / "classifier"
  mine = random_classifier.make(seed=1)
  mine.save(place)
  save_classifier.save(random_classifier.make(), place)
  kept = place.with_name("classifier.old")
  printed = capsys.readouterr().out
  assert f"not recorded as written by a task: it is kept in {kept}" in printed
  assert classifier_lib.Classifier.load(kept).digest == mine.digest
  # Its own one is replaced.
  save_classifier.save(random_classifier.make(seed=2), place)
  assert len(list(place.parent.iterdir())) == 2
