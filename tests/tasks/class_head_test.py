"""Every task on a run whose class head decides."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.report import accuracy
from paws_jax.tasks import evaluate
from paws_jax.tasks import export
from paws_jax.tasks import finetune
from paws_jax.tasks import predict
from paws_jax.tasks import pretrain
from paws_jax.tasks import report
from paws_jax.training import experiment
from tests import class_head_runs
from tests import tiny_recipe

pytestmark = [pytest.mark.unoptimized, pytest.mark.devices(2)]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """(recipe, workdir) of a run of FixMatch."""
  config = tiny_recipe.get_config()
  class_head_runs.change(config, "fixmatch")
  config.train.epochs = 1
  config.method.ema_decay = 0.5
  workdir = tmp_path_factory.mktemp("class_head") / "run"
  pretrain.run(pretrain.prepare(config, str(workdir)))
  return config, workdir


@pytest.mark.slow
def test_the_head_s_accuracy_is_reported_and_the_vote_s_beside_it(run, capsys):
  config, workdir = run
  evaluate.run(evaluate.prepare(config, str(workdir)))
  rows = json.loads((workdir / "results.json").read_text())
  trained = rows[0]
  assert trained["protocol"] == "class_head"
  assert trained["top1"] != trained["soft_nn_top1"]
  own = next(r for r in rows[1:] if r["protocol"] == "class_head")
  vote = next(r for r in rows[1:] if r["protocol"] == "soft_nn")
  assert own["top1"] == trained["top1"]
  assert vote["top1"] == trained["soft_nn_top1"]
  best = accuracy.best_known(accuracy.accuracies(rows))
  assert (best.protocol, best.top1) == ("class head", own["top1"])
  assert "class head" in capsys.readouterr().out
  metrics = (workdir / "metrics.jsonl").read_text()
  assert '"class_head_top1"' in metrics
  assert '"mask_rate"' in metrics


@pytest.mark.slow
def test_a_saved_classifier_decides_by_the_head(run):
  _, workdir = run
  classifier = classifier_lib.Classifier.load(workdir / "classifier")
  assert "a class head" in repr(classifier)
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (5, 8, 8, 1), dtype=np.uint8)
  predicted = classifier.predict(images)
  features = classifier.embed(images, layer="features")
  logits = features @ classifier.head.kernel + classifier.head.bias
  expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
  np.testing.assert_allclose(
    predicted.probabilities, expected, rtol=1e-4, atol=1e-6
  )
  # The nearest labelled images explain it, by the features under the head.
  assert predicted.support_indices.shape == (5, 3)
  np.testing.assert_allclose(classifier.embed(images), features, rtol=1e-5)
  with pytest.raises(errors.InputError, match="a class head"):
    classifier.add_class("new", images)


@pytest.mark.slow
def test_predictions_and_the_report(run, tmp_path, capsys):
  """The head's probabilities, with the nearest labelled images beside them."""
  config, workdir = run
  rng = np.random.default_rng(0)
  folder = tmp_path / "images"
  folder.mkdir()
  images = rng.integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
  for i, pixels in enumerate(images):
    Image.fromarray(pixels[..., 0]).save(folder / f"{i}.png")
  prepared = predict.prepare(
    config,
    str(workdir),
    images=str(folder),
    classifier=None,
    add_class=(),
    head="soft_nn",
    output=str(tmp_path / "predictions.csv"),
  )
  assert predict.run(prepared) == 0
  assert "the class head of the run" in capsys.readouterr().out
  with (tmp_path / "predictions.csv").open() as file:
    rows = list(csv.DictReader(file))
  classifier = classifier_lib.Classifier.load(workdir / "classifier")
  wanted = classifier.predict(images)
  for row, probabilities in zip(rows, wanted.probabilities, strict=True):
    best = int(probabilities.argmax())
    assert row["predicted_class"] == classifier.class_names[best]
    found = float(row["probability"])
    assert found == pytest.approx(probabilities[best], abs=1e-4)
    assert row["support_1"]
    assert row["support_1_class"]
  assert report.run(report.prepare(config, str(workdir))) == 0
  page = (workdir / "report.html").read_text()
  assert "class head" in page


@pytest.mark.slow
def test_it_is_exported(run, tmp_path):
  _, workdir = run
  prepared = export.prepare(
    None,
    "",
    classifier=str(workdir / "classifier"),
    output=str(tmp_path / "out"),
    targets=("stablehlo", "torch"),
  )
  assert export.run(prepared) == 0
  model = json.loads((tmp_path / "out/stablehlo/model.json").read_text())
  assert model["decides"] == "a class head"


@pytest.mark.slow
def test_fine_tuning_goes_on_from_the_head(run):
  config, workdir = run
  config = config.copy_and_resolve_references()
  config.finetune.update(learning_rates=(0.01,), epochs=1, batch_size=24)
  prepared = finetune.prepare(config, str(workdir))
  initial = prepared.protocol.initial_params()["head"]
  classifier = classifier_lib.Classifier.load(workdir / "classifier")
  np.testing.assert_array_equal(initial["kernel"], classifier.head.kernel)
  assert finetune.run(prepared) == 0
  row = json.loads((workdir / "results.json").read_text())[-1]
  tuned = classifier_lib.Classifier.load(workdir / "finetuned")
  assert np.abs(tuned.head.kernel - classifier.head.kernel).max() > 1e-5
  # What is saved answers as was measured.
  test = prepared.trained.experiment.dataset.test
  chosen = tuned.predict(np.asarray(test.images)).probabilities.argmax(-1)
  assert np.mean(chosen == test.labels) == pytest.approx(row["top1"])
  config.finetune.protocol = "suncet"
  with pytest.raises(errors.InputError, match="whose linear layer decides"):
    finetune.prepare(config, str(workdir))


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"model.projection_layers": 3}, "trains a classifier on the trunk"),
    (
      {"train.batch_size": 256},
      r"10 labelled images \(support.batch_size\), .* of 10, such as 70",
    ),
    ({"method.threshold": 1.5}, "greater than 0 and at most 1"),
    ({"method.threshold": 0.0}, "greater than 0 and at most 1"),
    ({"views.strong.rand_augment": "autoaugment"}, "one of fixmatch, "),
    ({"model.prediction_head": True}, "it follows a projection head"),
  ],
)
def test_recipes_that_do_not_fit_are_refused(change, message):
  config = tiny_recipe.get_config()
  class_head_runs.change(config, "fixmatch")
  config.update_from_flattened_dict(change)
  with pytest.raises(errors.InputError, match=message):
    config_lib.resolve(config)


@pytest.mark.parametrize("classes", [0, 10])
def test_labelled_images_of_all_classes_divide_the_others(classes):
  config = tiny_recipe.get_config()
  class_head_runs.change(config, "fixmatch")
  config.support.update(
    sampling="balanced",
    batch_size=0,
    classes_per_step=classes,
    images_per_class=7,
  )

  def create():
    recipe = config_lib.resolve(config)
    experiment.create_method(recipe, dataset_name="digits", num_classes=10)

  with pytest.raises(
    errors.InputError,
    match=r"is 240 but a step has 70 labelled images \(support.classes_per_ste"
    r"p x support.images_per_class\), .* multiple of 70, such as 490",
  ):
    create()
  config.train.batch_size = 210
  create()


def test_a_method_that_compares_needs_a_projection_head():
  config = tiny_recipe.get_config()
  config.model.projection_layers = 0
  with pytest.raises(errors.InputError, match="compares outputs of the proj"):
    config_lib.resolve(config)
