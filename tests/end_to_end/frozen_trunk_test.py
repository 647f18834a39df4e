"""Runs with a frozen trunk, from their features to every task."""

import csv
import io
import shutil
import types

import jax
import numpy as np
import pytest

import paws_jax
from paws_jax.classifier import files as classifier_files
from paws_jax.data import feature_pipeline
from paws_jax.finetune import protocols
from paws_jax.runs import metrics
from paws_jax.runs import results
from paws_jax.runs import workdir as workdir_lib
from paws_jax.tasks import doctor
from paws_jax.tasks import embed
from paws_jax.tasks import evaluate
from paws_jax.tasks import export
from paws_jax.tasks import finetune
from paws_jax.tasks import predict
from paws_jax.tasks import pretrain
from paws_jax.tasks import report
from paws_jax.training import restore
from paws_jax.training import trunk_encoder
from paws_jax.training import trunk_features
from tests import frozen_recipe
from tests import small_runs

pytestmark = [
  pytest.mark.slow,
  pytest.mark.unoptimized,
  pytest.mark.devices(2),
]


@pytest.fixture(scope="module", params=frozen_recipe.PIPELINES)
def trained(request, tmp_path_factory):
  """Recipe, variables of the trunk, directory, and what training began with."""
  directory = tmp_path_factory.mktemp(request.param)
  config, trunk = frozen_recipe.create(directory, request.param)
  config.checkpoint.keep_every_steps = 2
  config.finetune.update(epochs=1, batch_size=8, learning_rates=(0.1,))
  path = directory / "run"
  prepared = _prepare(config, path)
  stored = _stored(prepared)
  assert pretrain.run(prepared) == 0
  # It needs the weights no more.
  (directory / "trunk.npz").rename(directory / "moved.npz")
  return types.SimpleNamespace(
    directory=directory,
    config=config,
    trunk=trunk,
    path=path,
    prepared=prepared,
    stored=stored,
  )


def _prepare(config, path, num_devices=1):
  return pretrain.prepare(
    config, str(path), devices=jax.devices()[:num_devices]
  )


def _stored(prepared):
  """Features of a prepared run, on the host."""
  pipeline = prepared.experiment.pipeline
  assert isinstance(pipeline, feature_pipeline.FeaturePipeline)
  return jax.device_get(pipeline.inputs(0, 1).images)


def _equal(tree, other):
  jax.tree.map(np.testing.assert_array_equal, tree, other)


def _saved(path):
  return classifier_files.read(path / workdir_lib.CLASSIFIER)["variables"]


def _logged(path, name):
  rows = metrics.read(path / metrics.METRICS)
  return [(row["step"], row[name]) for row in rows if name in row]


def test_heads_learn_and_the_trunk_does_not(trained):
  prepared = trained.prepared
  num_images = len(prepared.experiment.dataset.train_images)
  assert {n: a.shape[:2] for n, a in trained.stored.views.items()} == {
    "large": (num_images, 3),
    "small": (num_images, 3),
  }
  assert trained.stored.support.shape[1] == 5
  saved = _saved(trained.path)
  for kind, parts in trained.trunk.items():
    _equal(saved[kind]["trunk"], parts["trunk"])
  start = prepared.experiment.initial_state(warm=False)
  before, after = (
    jax.tree.leaves(params["projection"])
    for params in (start.params, saved["params"])
  )
  pairs = zip(before, after, strict=True)
  assert any(np.any(np.asarray(leaf) != other) for leaf, other in pairs)


def _last_prior(path):
  # A copy has the row of the original, too.
  *_, row = [r for r in results.read_results(path) if "prior" in r]
  return row["prior"], row["prior_change"], row["prior_held_out_accuracy"]


def test_the_prior_is_estimated(trained):
  shares, change, accuracy = _last_prior(trained.path)
  names = trained.prepared.experiment.dataset.class_names
  assert [name for name, _ in shares] == list(names)
  values = [share for _, share in shares]
  assert sum(values) == pytest.approx(1, abs=0.01)
  # Estimated, and no class is given up.
  assert len(set(values)) > 1
  assert min(values) > 0.2 / len(names)
  assert 0 < change < 1
  assert 0 <= accuracy <= 1
  logged = _logged(trained.path, "prior_largest")
  assert [step for step, _ in logged] == [
    step for step, _ in _logged(trained.path, "soft_nn_top1")
  ]


def test_a_prior_is_estimated_from_images(trained, tmp_path, capsys):
  config = trained.config.copy_and_resolve_references()
  config.model.update(trunk="train", init_from="", name="small_resnet")
  prepared = _prepare(config, tmp_path / "run")
  assert pretrain.run(prepared) == 0
  text = capsys.readouterr().out
  assert text.count("estimated shares of the classes") == 2
  # Metrics of the prior make no class head.
  assert "soft-NN" in text
  assert "class head" not in text
  assert _last_prior(tmp_path / "run")


def test_a_longer_run_computes_no_features(trained, tmp_path, monkeypatch):
  shutil.copytree(trained.path, tmp_path / "run")
  monkeypatch.setattr(
    trunk_encoder.TrunkEncoder,
    "encode",
    lambda *_: pytest.fail("features are computed"),
  )
  config = trained.config.copy_and_resolve_references()
  config.train.epochs = 3
  _equal(_stored(_prepare(config, tmp_path / "run")), trained.stored)


def test_a_stopped_run_is_the_uninterrupted_one(trained, tmp_path):
  path = tmp_path / "run"
  shutil.copytree(trained.path, path)
  checkpoints = path / workdir_lib.CHECKPOINTS
  for step in [int(p.name) for p in checkpoints.iterdir() if p.name.isdigit()]:
    if step > 2:  # Within the first epoch.
      shutil.rmtree(checkpoints / str(step))
  shutil.rmtree(path / workdir_lib.CLASSIFIER)
  # Some features are damaged, and some were never computed.
  for file in (path / trunk_features.DIRECTORY).rglob("large.npy"):
    array = np.load(file, mmap_mode="r+")
    array[5] += 1
    array.flush()
  for file in (path / trunk_features.DIRECTORY).rglob("support.sums.npy"):
    array = np.load(file, mmap_mode="r+")
    array[2:] = 0
    array.flush()
  other = path / trunk_features.DIRECTORY / ("0" * 16)
  other.mkdir()
  prepared = _prepare(trained.config, path)
  _equal(_stored(prepared), trained.stored)
  assert not other.exists()
  assert pretrain.run(prepared) == 0
  _equal(_saved(path), _saved(trained.path))
  for name in ("loss", "prior_largest", "prior_change"):
    assert _logged(path, name) == _logged(trained.path, name)
  assert _last_prior(path) == _last_prior(trained.path)


def test_another_number_of_devices_gives_the_same(trained, tmp_path):
  config = trained.config.copy_and_resolve_references()
  config.model.init_from = str(trained.directory / "moved.npz")
  prepared = _prepare(config, tmp_path / "run", num_devices=2)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3),
    _stored(prepared),
    trained.stored,
  )
  assert pretrain.run(prepared) == 0
  np.testing.assert_allclose(
    _logged(tmp_path / "run", "loss"), _logged(trained.path, "loss"), rtol=5e-3
  )


def test_epochs_fit_into_minutes(trained, tmp_path, monkeypatch):
  config = trained.config.copy_and_resolve_references()
  config.model.init_from = str(trained.directory / "moved.npz")
  config.train.update(epochs=0, minutes=1.0)
  read, create = [], trunk_features.create
  monkeypatch.setattr(
    trunk_features, "create", lambda *a: read.append(1) or create(*a)
  )
  prepared = _prepare(config, tmp_path / "run")
  assert len(read) == 1
  assert prepared.recipe.train.epochs > 2
  _equal(_stored(prepared), trained.stored)


def test_tasks_that_read_images(trained, tmp_path):
  images = small_runs.write_photos(tmp_path / "images") / "unlabelled"
  path = str(trained.path)
  options = {"classifier": None, "head": "soft_nn"}
  made = predict.prepare(
    trained.config,
    path,
    images=str(images),
    add_class=[f"new={images}"],
    output=str(tmp_path / "p.csv"),
    **options,
  )
  assert predict.run(made) == 0
  rows = list(csv.DictReader(io.StringIO((tmp_path / "p.csv").read_text())))
  assert len(rows) == 42
  made = embed.prepare(
    trained.config,
    path,
    images=str(images),
    layer="features",
    output=str(tmp_path / "e.npz"),
    **options,
  )
  assert embed.run(made) == 0
  classifier = paws_jax.Classifier.load(trained.path / workdir_lib.CLASSIFIER)
  files = sorted(str(file) for file in images.iterdir())
  larger = classifier.add_class("zebra", files[:2])
  assert "zebra" in larger.class_names
  np.testing.assert_allclose(
    larger.predict(files[2:4]).probabilities.sum(axis=1), 1, rtol=1e-5
  )
  made = export.prepare(
    trained.config, path, targets=("torch",), output=str(tmp_path / "out")
  )
  assert export.run(made) == 0


def test_tasks_that_read_the_run(trained, tmp_path):
  made = evaluate.prepare(trained.config, str(trained.path))
  assert evaluate.run(made) == 0
  page = tmp_path / "page.html"
  made = report.prepare(trained.config, str(trained.path), output=str(page))
  assert report.run(made) == 0
  made = finetune.prepare(trained.config, str(trained.path))
  assert finetune.run(made) == 0
  rows = results.read_results(trained.path)
  assert {row["task"] for row in rows} >= {"pretrain", "evaluate", "finetune"}
  text = " ".join(page.read_text().split())
  assert "estimated prior" in text
  assert "a classifier of the labels alone is right for" in text


def test_fine_tuning_changes_the_trunk(trained):
  run = restore.load(trained.prepared.recipe, str(trained.path))
  setup = protocols.PROTOCOLS["suncet"](run).setup(
    run.experiment.dataset.split.labelled_ids
  )
  assert not setup.trainer.method.encoder.freeze_trunk


def test_the_doctor_states_space_and_time(trained, tmp_path, capsys):
  config = trained.config.copy_and_resolve_references()
  config.model.init_from = str(trained.directory / "moved.npz")
  doctor.run(
    config, str(tmp_path / "run"), train_command="train", time_steps=True
  )
  text = " ".join(capsys.readouterr().out.split())
  assert "the features of 3 views of an image by each spec, and of 5 of" in text
  assert f"MB in {tmp_path}/run/features" in text
  assert "computing the features takes about" in text
  assert "training takes about" in text
