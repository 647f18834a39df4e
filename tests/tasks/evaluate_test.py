"""--task=evaluate: its rows, table and files; few labels, no test images."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import shutil

import jax
import ml_collections
import numpy as np
import pytest
from matplotlib import image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import models
from paws_jax.evaluation import embed as embed_lib
from paws_jax.evaluation import linear_probe
from paws_jax.evaluation import result_rows
from paws_jax.runs import checkpoint
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import evaluate
from paws_jax.tasks import pretrain
from paws_jax.training import checkpoints
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import measure
from paws_jax.training import restore
from tests import processes
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized

WIDTH = 8


def _config(labels_per_class=2):
  config = tiny_recipe.get_config()
  config.data.labels_per_class = labels_per_class
  config.support.images_per_class = min(labels_per_class, 2)
  config.model.output_dim = WIDTH
  return config


def _embed_pixels(*unused, **kwargs):
  """Stands for make_embedder: the trunk gives pixels, h eight sums of them."""
  del unused, kwargs
  mix = np.random.default_rng(0).normal(size=(64, WIDTH))

  def embed(params, batch_stats, images):
    del params, batch_stats
    pixels = images.reshape(len(images), -1) / 255
    return np.concatenate([pixels, pixels @ mix], axis=1).astype(np.float32)

  return embed


def _maker(directory, monkeypatch):
  """A function that makes what a run has learnt: to add pixels up."""
  monkeypatch.setattr(embed_lib, "make_embedder", _embed_pixels)
  # Less to wait for.
  monkeypatch.setattr(linear_probe, "STRENGTHS", (0.1, 0.01))

  def make(labels_per_class=2, **changes):
    config = _config(labels_per_class)
    experiment = experiment_lib.create(config_lib.resolve(config))
    dataset = dataclasses.replace(experiment.dataset, **changes)
    (directory / recipe_lib.RECIPE).write_text("{}")
    made = restore.TrainedRun(
      recipe=config_lib.resolve(config),
      workdir=directory,
      experiment=dataclasses.replace(experiment, dataset=dataset),
      params={},
      batch_stats={},
      step=7,
    )
    monkeypatch.setattr(restore, "load", lambda *unused: made)
    return made

  return make


@pytest.fixture
def trained(tmp_path, monkeypatch):
  return _maker(tmp_path, monkeypatch)


def _run(trained):
  """Rows by title."""
  prepared = evaluate.prepare(trained.recipe, str(trained.workdir))
  assert evaluate.run(prepared) == 0
  return {r["title"]: r for r in results.read_results(trained.workdir)}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
  """A run, its rows and what was printed, of four labels a class."""
  directory = tmp_path_factory.mktemp("measured")
  output = io.StringIO()
  with (
    pytest.MonkeyPatch.context() as monkeypatch,
    contextlib.redirect_stdout(output),
  ):
    made = _maker(directory, monkeypatch)(labels_per_class=4)
    return made, _run(made), output.getvalue()


TITLES = [
  "soft NN",
  "1-NN",
  "20-NN",
  "linear probe, trunk",
  "linear probe, h",
  "leave-one-out, labelled",
]
PIXELS = [
  "soft NN on raw pixels",
  "1-NN on raw pixels",
  "logistic regression on raw pixels",
]


def test_every_protocol_is_a_row_that_says_what_was_measured(measured):
  made, rows, text = measured
  assert list(rows) == TITLES + PIXELS
  dataset = made.experiment.dataset
  for title, row in rows.items():
    labelled = title.startswith("leave")
    if title in PIXELS:
      # The same of any encoder.
      assert row["task"] == "baseline"
      assert not {"step", "recipe"} & set(row)
      row = row | {"task": "evaluate", "step": 7}
      row["recipe"] = hashlib.sha256(b"{}").hexdigest()
    expected = {
      "task": "evaluate",
      "method": "paws",
      "dataset": "digits",
      "split_seed": 0,
      "split_hash": dataset.split.hash,
      "recipe": hashlib.sha256(b"{}").hexdigest(),
      "step": 7,
      "num_labels": 40,
      "part": "labelled" if labelled else "test",
      "num_images": 40 if labelled else 360,
    }
    assert {k: row[k] for k in expected} == expected
    assert 0 < row["top1"] <= 1
    if row.get("k") == 1:
      assert row["top5"] is row["top5_interval"] is None
    else:
      assert row["top1"] <= row["top5"] <= 1
    for k in ("top1", "top5") if row["top5"] is not None else ("top1",):
      low, high = row[f"{k}_interval"]
      assert low < row[k] <= high
    assert ("ece" in row) == ("NN" not in title or "soft NN" in title)
    assert row.get("ece_bins", 15) == 15
  assert [rows[t]["embedding"] for t in TITLES] == [
    *("z", "z", "z", "trunk", "h", "z")
  ]
  assert all(rows[t]["embedding"] == "pixels" for t in PIXELS)
  assert [rows[f"{k}-NN"]["k"] for k in (1, 20)] == [1, 20]
  assert rows["linear probe, h"]["num_left_out"] == 40
  # Pixels tell digits apart far better than chance, and than eight sums.
  assert rows["linear probe, trunk"]["top1"] > 0.6 > rows["1-NN"]["top1"] > 0.2
  assert result_rows.evaluation_table(list(rows.values())) in text
  assert "digits: 40 labels, 360 test images, step 7, 95 % intervals" in text
  assert "left out in turn (4 folds)" in text


def test_numbers_are_those_of_the_modules_that_compute_them(measured):
  made, rows, _ = measured
  dataset = made.experiment.dataset
  embed = _embed_pixels()
  queries, supports = (
    embed({}, {}, part.images)[:, -WIDTH:]
    for part in (dataset.test, dataset.labelled)
  )
  for title, part, rows_of_part in (
    ("soft NN", "test", queries),
    ("leave-one-out, labelled", "labelled", supports),
  ):
    accuracy = measure.soft_nn(made.experiment, part, rows_of_part, supports)
    assert {k: rows[title][k] for k in accuracy} == accuracy
  nearest = (
    supports / np.linalg.norm(supports, axis=1, keepdims=True) @ queries.T
  ).argmax(axis=0)
  right = dataset.labelled.labels[nearest] == dataset.test.labels
  assert rows["1-NN"]["top1"] == pytest.approx(right.mean())


def test_files_agree_with_the_rows(measured):
  made, rows, _ = measured
  directory = made.workdir / "evaluation"
  with (directory / "confusion.csv").open() as file:
    header, *lines = csv.reader(file)
  assert header == ["true class", *map(str, range(10))]
  counts = np.array([line[1:] for line in lines], int)
  labels = made.experiment.dataset.test.labels
  np.testing.assert_array_equal(counts.sum(axis=1), np.bincount(labels))
  main = rows["soft NN"]
  assert np.trace(counts) / 360 == pytest.approx(main["top1"])
  each = np.diag(counts) / counts.sum(axis=1)
  np.testing.assert_allclose(main["per_class_top1"], each)
  assert main["mean_per_class_top1"] == pytest.approx(each.mean())
  with (directory / "per_class.csv").open() as file:
    table = list(csv.DictReader(file))
  assert len(table) == 60
  assert list(dict.fromkeys(row["protocol"] for row in table)) == TITLES
  assert table[3]["top1"] == f"{each[3]:.4f}"
  for name in ("confusion.png", "reliability.png"):
    pixels = image.imread(directory / name)[..., :3]
    assert pixels.min() < 0.4
    assert min(pixels.shape[:2]) > 300


def test_the_same_command_again_adds_no_rows(trained):
  made = trained(test=None)
  results.append_result(made.workdir, {"task": "pretrain"})
  prepared = evaluate.prepare(made.recipe, str(made.workdir))
  for step, number in ((7, 5), (7, 5), (8, 6)):
    evaluate.run(
      dataclasses.replace(
        prepared, trained=dataclasses.replace(made, step=step)
      )
    )
    assert len(results.read_results(made.workdir)) == number


def test_one_label_a_class(trained, capsys):
  rows = _run(trained(labels_per_class=1))
  title = "10-NN (all labelled, not 20)"
  assert list(rows) == [*TITLES[:2], title, *TITLES[3:5], *PIXELS]
  assert (rows[title]["k"], rows[title]["k_wanted"]) == (10, 20)
  assert rows["linear probe, h"]["num_folds"] == 0
  text = capsys.readouterr().out
  assert "no class has two different labelled images: no leave-one-out" in text
  assert "fixed, since no class has two labelled images" in text


def test_no_test_images(trained, capsys):
  made = trained(test=None)
  rows = _run(made)
  assert list(rows) == [TITLES[-1], *PIXELS]
  assert len(rows[TITLES[-1]]["per_class_top1"]) == 10
  text = capsys.readouterr().out
  assert "only leave-one-out is measured" in text
  assert "20 labels, no test images" in text
  assert (made.workdir / "evaluation" / "confusion.png").exists()


def test_validation_images_stand_in_for_test_images(trained, capsys):
  made = trained()
  dataset = made.experiment.dataset
  made = trained(test=None, validation=dataset.test)
  assert {row["part"] for row in _run(made).values()} == {
    "validation",
    "labelled",
  }
  assert "360 validation images" in capsys.readouterr().out


def test_nothing_to_measure_is_refused(trained):
  made = trained(labels_per_class=1, test=None)
  with pytest.raises(ValueError, match=r"nothing to measure.*data\.test_dir"):
    evaluate.prepare(made.recipe, str(made.workdir))


class _Broken(np.ndarray):
  """Images of which some cannot be read."""

  readable = np.ones(20, bool)


def _break(made, readable):
  labelled = made.experiment.dataset.labelled
  images = labelled.images.view(_Broken)
  images.readable = readable
  return dataclasses.replace(labelled, images=images)


def test_labelled_images_that_cannot_be_read_do_not_vote(trained):
  made = trained()
  readable = np.arange(20) % 10 > 0
  rows = _run(trained(labelled=_break(made, readable)))
  assert rows["soft NN"]["num_labels"] == 18
  assert rows["leave-one-out, labelled"]["num_images"] == 18
  assert rows["linear probe, h"]["num_left_out"] <= 18


@pytest.mark.parametrize("test_images", [True, False])
def test_too_few_labelled_images_that_can_be_read(trained, test_images):
  made = trained()
  changes = {} if test_images else {"test": None}
  readable = np.arange(20) == 3
  problem = "no two different ones are of one class"
  if test_images:
    readable, problem = np.zeros(20, bool), "none of the 20 labelled images"
  made = trained(labelled=_break(made, readable), **changes)
  # In memory nothing can be unreadable: that shows only after reading.
  prepared = evaluate.EvaluateInputs(made, "test" if test_images else "")
  with pytest.raises(errors.WorkdirError, match=problem):
    evaluate.run(prepared)
  assert not (made.workdir / results.RESULTS).exists()


def test_embeddings_that_are_not_finite_are_refused(trained, monkeypatch):
  made = trained()

  def embedder(*args, **kwargs):
    del args, kwargs
    return lambda params, state, images: np.full((len(images), 72), np.nan)

  monkeypatch.setattr(embed_lib, "make_embedder", embedder)
  problem = r"20 of 20 labelled .* step 7"
  with pytest.raises(errors.NonFiniteError, match=problem):
    _run(made)
  assert not (made.workdir / results.RESULTS).exists()


def test_results_that_could_not_be_added_to_are_refused(trained):
  made = trained()
  (made.workdir / results.RESULTS).write_text("{}")
  with pytest.raises(ValueError, match="not a JSON list"):
    evaluate.prepare(made.recipe, str(made.workdir))


def test_a_directory_in_use_is_refused(trained):
  made = trained()
  prepared = evaluate.prepare(made.recipe, str(made.workdir))
  with (
    workdir_lib.lock(made.workdir),
    pytest.raises(errors.WorkdirError, match="is in use by process"),
  ):
    evaluate.run(prepared)


def test_out_of_memory_says_what_to_lower(trained, monkeypatch):
  def embedder(*args, **kwargs):
    del args, kwargs
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 99 bytes.\nmore")

  made = trained()
  monkeypatch.setattr(embed_lib, "make_embedder", embedder)
  with pytest.raises(MemoryError, match=r"Lower eval\.batch_size \(now 256\)"):
    _run(made)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Recipe, directory and state of a run that has saved its initial state."""
  config = _config()
  config.model.name = "small_resnet"
  config.model.width = 1
  config.model.prediction_head = True
  prepared = pretrain.prepare(config, str(tmp_path_factory.mktemp("run")))
  state = prepared.experiment.initial_state()
  directory = prepared.workdir / workdir_lib.CHECKPOINTS
  with checkpoint.Checkpointer(directory) as checkpointer:
    checkpoints.save(checkpointer, prepared.experiment.trainer, 4, state, {})
  return config, prepared, state


@pytest.mark.slow
def test_a_run_is_evaluated_by_its_newest_checkpoint(run, capsys):
  config, before, state = run
  prepared = evaluate.prepare(config, str(before.workdir))
  assert evaluate.run(prepared) == 0
  assert "the run has taken 4 of 10 steps so far" in capsys.readouterr().out
  rows = {r["title"]: r for r in results.read_results(before.workdir)}
  assert list(rows) == TITLES + PIXELS
  # As pre-training would have measured it.
  experiment = before.experiment
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  queries, supports = (
    measure.embed(experiment, variables, part, step=4)
    for part in ("test", "labelled")
  )
  accuracy = measure.soft_nn(experiment, "test", queries, supports)
  assert rows["soft NN"]["top1"] == accuracy["top1"]
  recipe = (before.workdir / "config.json").read_bytes()
  assert rows["1-NN"]["recipe"] == hashlib.sha256(recipe).hexdigest()
  assert json.loads(recipe)["model"]["name"] == "small_resnet"


@pytest.mark.slow
def test_two_processes_measure_what_one_does(run, tmp_path):
  _, before, _ = run
  ignored = shutil.ignore_patterns(results.RESULTS, "evaluation")
  shutil.copytree(before.workdir, tmp_path / "run", ignore=ignored)
  with processes.start_main(
    ["--task=evaluate", f"--workdir={tmp_path / 'run'}"],
    num_processes=2,
    devices=1,
  ) as group:
    main, other = group.wait(seconds=400)
  assert (main.status, other.status) == (0, 0), main.err + other.err
  assert "linear probe, h" in main.out
  assert "linear" not in other.out
  together = results.read_results(tmp_path / "run")
  alone = results.read_results(before.workdir)
  assert [row["title"] for row in together] == TITLES + PIXELS
  for row, other_row in zip(together, alone, strict=True):
    # Two of 360 images may lie on a border.
    assert row["top1"] == pytest.approx(other_row["top1"], abs=0.006)
    assert row["split_hash"] == other_row["split_hash"]


@pytest.mark.slow
def test_all_layers_are_those_of_the_encoder(run):
  config, _, state = run
  encoder = models.create(dict(config.model))
  crops = np.random.default_rng(0).normal(size=(3, 8, 8, 1)).astype(np.float32)
  variables = {"params": state.params, "batch_stats": state.batch_stats}

  @jax.jit
  def layers(variables, crops):
    features = encoder.apply(variables, crops, train=False, method="features")
    rows = encoder.apply(variables, crops, method=evaluate.all_layers)
    return rows, features, *encoder.apply(variables, crops, train=False)

  rows, features, h, z = layers(variables, crops)
  expected = np.concatenate([features, h, z], axis=1)
  np.testing.assert_allclose(rows, expected, atol=1e-6)
  assert np.abs(h - z).max() > 1e-3


@pytest.mark.slow
def test_two_processes_train_the_same_linear_layer(run, tmp_path):
  config, before, _ = run
  ignored = shutil.ignore_patterns(results.RESULTS, "evaluation")
  shutil.copytree(before.workdir, tmp_path / "run", ignore=ignored)
  flags = {"linear_epochs": 3, "linear_learning_rate": 1.0}
  with processes.start_main(
    [
      "--task=evaluate",
      "--protocol=linear_moco",
      f"--workdir={tmp_path / 'run'}",
      *(f"--config.eval.{name}={value}" for name, value in flags.items()),
    ],
    num_processes=2,
    devices=1,
  ) as group:
    main, other = group.wait(seconds=400)
  assert (main.status, other.status) == (0, 0), main.err + other.err
  (together,) = results.read_results(tmp_path / "run")
  shutil.copytree(before.workdir, tmp_path / "alone", ignore=ignored)
  config = ml_collections.ConfigDict(config)
  config.eval.update(flags)
  # On eight devices a batch is padded.
  prepared = evaluate.prepare(
    config, str(tmp_path / "alone"), protocol="linear_moco"
  )
  assert evaluate.run(prepared) == 0
  (alone,) = results.read_results(tmp_path / "alone")
  # Two of 360 images may lie on a border.
  assert together["top1"] == pytest.approx(alone["top1"], abs=0.006)
  same = ("protocol", "batch_size", "epochs", "learning_rate", "split_hash")
  assert [together[name] for name in same] == [alone[name] for name in same]
