"""Fine-tuning: what is chosen on what, and that what is saved was scored."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier
from paws_jax.evaluation import accuracy as accuracy_lib
from paws_jax.finetune import results
from paws_jax.finetune import scores
from paws_jax.finetune import sweep
from paws_jax.runs import checkpoint
from paws_jax.runs import results as results_lib
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import finetune
from paws_jax.training import checkpoints
from paws_jax.training import experiment
from paws_jax.training import restore
from tests import random_classifier
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized

# It leaves no finite number anywhere.
TOO_HIGH = 1e30


def recipe(**changes):
  """Digits, 5 labels a class; a network whose statistics are soon its own."""
  config = tiny_recipe.get_config()
  config.data.labels_per_class = 5
  config.support.classes_per_step = 10
  config.model.name = "small_resnet"
  config.model.bn_momentum = 0.3
  config.finetune.update(
    batch_size=16,
    epochs=4,
    learning_rates=(0.02, 0.2, TOO_HIGH),
    crop_scale=(0.7, 1.0),
    aspect_ratio=(1.0, 1.0),
    refit=False,
  )
  config.finetune.update(**changes)
  return config.lock()


@pytest.fixture(scope="module", autouse=True)
def one_device():
  """Eight would take longer to compile for; the parts are tried on more."""
  with pytest.MonkeyPatch.context() as patch:
    create = functools.partial(experiment.create, devices=jax.devices()[:1])
    patch.setattr(experiment, "create", create)
    yield


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A run that has taken no steps: its weights are random."""
  return untrained(recipe(), tmp_path_factory.mktemp("run"))


def untrained(config, path):
  built = experiment.create(config_lib.resolve(config))
  split = built.dataset.split.as_json()
  path = workdir_lib.prepare(path, config_lib.resolve(config), split)
  workdir_lib.write_split(path, split)
  directory = path / workdir_lib.CHECKPOINTS
  with checkpoint.Checkpointer(directory) as checkpointer:
    checkpoints.save(
      checkpointer, built.trainer, built.total_steps, built.initial_state(), {}
    )
  return path


class Watched:
  """Test images that tell which directory was full when they were asked for."""

  def __init__(self, part, sweeps):
    self._part, self._sweeps = part, sweeps
    self.members = []
    self.name = part.name
    self.images = part.images
    self.readable = part.readable

  @property
  def labels(self):
    self.members.append(sorted(path.name for path in self._sweeps.glob("*/*")))
    return self._part.labels

  def __len__(self):
    return len(self._part)


def watch(prepared):
  """The same, with test images that are watched."""
  built = prepared.trained.experiment
  test = Watched(built.dataset.test, prepared.trained.workdir / finetune.SWEEPS)
  dataset = dataclasses.replace(built.dataset, test=test)
  built = dataclasses.replace(built, dataset=dataset)
  trained = dataclasses.replace(prepared.trained, experiment=built)
  protocol = type(prepared.protocol)(trained)
  watched = dataclasses.replace(prepared, trained=trained, protocol=protocol)
  return watched, test


@pytest.fixture(scope="module")
def finished(workdir):
  """A sweep without a second training; (prepared, row, test images)."""
  prepared, test = watch(finetune.prepare(recipe(), str(workdir)))
  assert finetune.run(prepared) == 0
  return prepared, results_lib.read_results(workdir)[-1], test


def members(prepared):
  """Of the sweep that is done, restored."""
  return finetune._sweep(prepared)


@pytest.mark.slow
def test_the_classifier_scores_what_the_row_says(finished):
  prepared, row, test = finished
  saved = classifier.Classifier.load(
    prepared.trained.workdir / finetune.FINETUNED
  )
  found = saved.predict(np.asarray(test.images))
  labels = test._part.labels
  for k in (1, 5):
    accuracy = accuracy_lib.top_k_accuracy(found.probabilities, labels, k)
    assert accuracy == pytest.approx(row[f"top{k}"], abs=1e-9)
  low, high = row["top1_interval"]
  assert low < row["top1"] < high
  # Far better than one in ten.
  assert row["top1"] > 0.2
  assert saved.head is not None
  assert saved.origin["finetuned"] is True
  assert saved.origin["run_id"] == row["run_id"]
  assert saved.origin["step"] == prepared.trained.step


@pytest.mark.slow
def test_the_row_says_what_was_done(finished):
  prepared, row, _ = finished
  expected = {
    "task": "finetune",
    "protocol": "linear_head",
    "dataset": "digits",
    "num_labels": 50,
    "num_holdout": 10,
    "num_test": 360,
    "holdout": "stratified",
    "refit": False,
    "split_hash": prepared.trained.experiment.dataset.split.hash,
  }
  assert {name: row[name] for name in expected} == expected
  assert row["holdout_hash"] == prepared.holdout.hash
  rates = {each["learning_rate"]: each for each in row["sweep"]}
  assert set(rates) == {0.02, 0.2, TOO_HIGH}
  chosen = rates[row["learning_rate"]]
  assert chosen["epoch"] == row["epochs"]
  assert chosen["holdout_top1"] == row["holdout_top1"]
  table = results.table(row)
  assert f"chosen: learning rate {row['learning_rate']:g}" in table
  assert f"{row['top1']:6.1%}" in table


@pytest.mark.slow
def test_the_weights_that_are_kept_are_those_that_were_scored(finished):
  prepared, row, _ = finished
  score = scores.scorer(prepared.protocol, prepared.holdout)
  for member in members(prepared):
    if member.trouble:
      continue
    # Every epoch was scored, the last one, too.
    assert len(member.history) == 4
    assert member.history[member.epoch - 1] == member.score
    again = score(member.params, member.batch_stats)
    assert again == pytest.approx(member.score, rel=1e-5)
    # Nor would another epoch's pass for it.
    others = [s for s in member.history if s != member.score]
    assert len(others) == 3
    assert not any(scores.better(s, member.score) for s in others)
  assert row["epochs"] in range(1, 5)


@pytest.mark.slow
def test_a_learning_rate_that_diverges_does_not_end_the_sweep(finished):
  prepared, row, _ = finished
  (diverged,) = [m for m in members(prepared) if m.trouble]
  assert diverged.learning_rate == TOO_HIGH
  assert (diverged.epoch, diverged.score) == (0, None)
  assert "norm is inf at step 0" in diverged.trouble
  assert row["learning_rate"] != TOO_HIGH
  told = {m["learning_rate"]: m["stopped_early"] for m in row["sweep"]}
  assert told[TOO_HIGH] == diverged.trouble
  assert told[0.2] is None


@pytest.mark.slow
def test_test_images_are_not_seen_before_all_is_chosen(finished):
  _, _, test = finished
  assert test.members
  for seen in test.members:
    assert seen == ["lr-0.02", "lr-0.2", "lr-1e+30"]


@pytest.mark.slow
def test_what_is_done_is_not_done_again(finished, monkeypatch, capsys):
  prepared, row, test = finished
  before = len(test.members)

  def never(*unused, **options):
    raise AssertionError("trained again")

  monkeypatch.setattr(sweep, "_train", never)
  # A command that was killed before the result was written ...
  path = prepared.trained.workdir / results_lib.RESULTS
  path.rename(path.with_name("away"))
  assert finetune.run(prepared) == 0
  (again,) = results_lib.read_results(prepared.trained.workdir)
  assert again | {"wall_seconds": 0} == row | {"wall_seconds": 0}
  assert len(test.members) > before
  # ... and one that was not.
  before = len(test.members)
  assert finetune.run(prepared) == 0
  assert len(results_lib.read_results(prepared.trained.workdir)) == 1
  assert len(test.members) == before
  assert "is finished; its result" in capsys.readouterr().out


@pytest.mark.slow
def test_one_more_learning_rate_trains_one_more_member(finished, monkeypatch):
  prepared, _, _ = finished
  config = recipe(learning_rates=(0.02, 0.5), epochs=4, refit=True)
  more = finetune.prepare(config, str(prepared.trained.workdir))
  assert more.sweep_id == prepared.sweep_id
  assert more.run_id != prepared.run_id
  tried = []

  def fake(protocol, initial, *, learning_rate, epochs, score, **unused):
    tried.append((learning_rate, epochs, score is None))
    if score is not None:
      score = {"top1": 1.0, "cross_entropy": 0.1, "num_images": 10}
    epoch = epochs if score is None else 3
    return sweep.Member(
      learning_rate, epoch, score, (score,) * 4, "", 1.0, **initial
    )

  monkeypatch.setattr(sweep, "_train", fake)
  monkeypatch.setattr(finetune, "save", lambda *unused: None)
  row = finetune._finetune(more)
  # The last is all images again, as long as was best.
  assert tried == [(0.5, 4, False), (0.5, 3, True)]
  assert (row["learning_rate"], row["epochs"], row["refit"]) == (0.5, 3, True)


@pytest.mark.slow
def test_suncet_leaves_batch_statistics_alone(workdir):
  config = recipe(
    protocol="suncet",
    learning_rates=(0.5,),
    epochs=2,
    holdout="none",
    crop_scale=(1.0, 1.0),
  )
  prepared = finetune.prepare(config, str(workdir))
  assert prepared.holdout.scored is None
  assert finetune.run(prepared) == 0
  row = results_lib.read_results(workdir)[-1]
  assert (row["protocol"], row["holdout"]) == ("suncet", "none")
  assert (row["epochs"], row["holdout_top1"], row["num_holdout"]) == (
    2,
    None,
    0,
  )
  saved = classifier.Classifier.load(workdir / finetune.FINETUNED)
  assert saved.head is None
  before = prepared.trained
  kept = jax.tree.map(
    np.array_equal,
    dict(saved.variables["batch_stats"]),
    dict(jax.device_get(before.batch_stats)),
  )
  assert all(jax.tree.leaves(kept))
  moved = jax.tree.map(
    lambda new, old: not np.array_equal(new, old),
    dict(saved.variables["params"]["trunk"]),
    dict(jax.device_get(before.params["trunk"])),
  )
  assert any(jax.tree.leaves(moved))
  test = before.experiment.dataset.test
  found = saved.predict(np.asarray(test.images))
  accuracy = accuracy_lib.top_k_accuracy(found.probabilities, test.labels, 1)
  assert accuracy == pytest.approx(row["top1"], abs=1.5 / len(test))


def test_what_cannot_be_is_refused_before_anything_is_trained(workdir):
  for changes, message in (
    ({"holdout": "none"}, "has 3 values, .*give one learning rate"),
    ({"holdout": "paper"}, "holdout_file is ''"),
    ({"holdout_file": "more.txt"}, "only 'paper' reads it"),
    ({"batch_size": 0}, "finetune.batch_size is 0"),
    ({"holdout_fraction": 0.95}, "leaves nothing to train on of 10 of 10"),
  ):
    with pytest.raises(ValueError, match=message):
      finetune.prepare(recipe(**changes), str(workdir))


def test_a_run_that_has_learnt_nothing_yet_is_refused(tmp_path):
  config = recipe()
  workdir_lib.prepare(tmp_path, config_lib.resolve(config))
  with pytest.raises(errors.CheckpointError, match="no checkpoint yet"):
    finetune.prepare(config, str(tmp_path))


def test_the_ids_tell_apart_what_makes_a_difference(workdir):
  ids = {
    json.dumps(changes): finetune.prepare(recipe(**changes), str(workdir))
    for changes in ({}, {"epochs": 5}, {"refit": True}, {"batch_size": 32})
  }
  assert len({prepared.run_id for prepared in ids.values()}) == 4
  assert len({prepared.sweep_id for prepared in ids.values()}) == 3


def test_other_weights_of_the_same_step_are_another_run(workdir, monkeypatch):
  first = finetune.prepare(recipe(), str(workdir))
  again = finetune.prepare(recipe(), str(workdir))
  assert (again.sweep_id, again.run_id) == (first.sweep_id, first.run_id)
  load = restore.load

  def load_another(*args):
    found = load(*args)
    params = jax.tree.map(jnp.zeros_like, found.params)
    return dataclasses.replace(found, params=params)

  monkeypatch.setattr(restore, "load", load_another)
  other = finetune.prepare(recipe(), str(workdir))
  assert other.sweep_id != first.sweep_id
  assert other.run_id != first.run_id


def test_a_result_is_shown_beside_its_own_classifier_only(workdir, tmp_path):
  prepared = finetune.prepare(recipe(), str(workdir))
  trained = dataclasses.replace(prepared.trained, workdir=tmp_path)
  prepared = dataclasses.replace(prepared, trained=trained)
  row = {"task": "finetune", "run_id": prepared.run_id}
  results_lib.append_result(tmp_path, row)
  assert finetune._finished_row(prepared) is None
  for run_id, found in (("another", None), (prepared.run_id, row)):
    made = random_classifier.make(head=True)
    made = dataclasses.replace(made, origin={"run_id": run_id})
    made.save(tmp_path / finetune.FINETUNED)
    assert finetune._finished_row(prepared) == found


def own_images(root):
  """Four of two classes each; one cannot be read."""
  rng = np.random.default_rng(0)
  for name in ("cat", "dog"):
    (root / name).mkdir(parents=True)
    for i in range(4):
      pixels = rng.integers(0, 256, (12, 14, 3), np.uint8)
      Image.fromarray(pixels).save(root / name / f"{i}.png")
  (root / "cat" / "1.png").write_bytes(b"no image")


@pytest.mark.slow
def test_labelled_images_that_cannot_be_read_are_left_out(tmp_path, capsys):
  own_images(tmp_path / "photos")
  config = recipe(learning_rates=(0.02,), epochs=1, refit=True, batch_size=4)
  config.data.update(
    source="folder",
    pipeline="host",
    dir=str(tmp_path / "photos"),
    labels_per_class=0,
    canvas_size=16,
    on_bad_image="skip",
  )
  config.views.update(mean=(0.5,) * 3, std=(0.2,) * 3)
  config.support.update(classes_per_step=2, images_per_class=2)
  config.train.batch_size = 4
  workdir = untrained(config, tmp_path / "run")
  prepared = finetune.prepare(config, str(workdir))
  assert prepared.holdout.labelled_ids.tolist() == [0, 2, 3, 4, 5, 6, 7]
  assert "1 of 8 labelled images cannot be read" in capsys.readouterr().out
  assert finetune.run(prepared) == 0
  (row,) = results_lib.read_results(workdir)
  assert (row["num_labels"], row["num_holdout"]) == (7, 2)
  assert row["refit"]


def test_a_sweep_that_diverges_altogether_says_what_to_lower():
  members = [
    sweep.Member(rate, 0, None, (), "loss is nan at step 1", 1.0, None, None)
    for rate in (1.0, 2.0)
  ]
  with pytest.raises(
    errors.NonFiniteError, match=r"rates 1, 2 .*\(loss is nan.*lower finetune"
  ):
    sweep.choose(members)
