"""Classifiers: as good as the evaluation, saved, extended, refused."""

import copy
import dataclasses
import functools
import json
import pickle
import types

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import numpy as safetensors

import paws_jax
from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import models
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import image_list
from paws_jax.classifier import predictions as predictions_lib
from paws_jax.data import load_dataset
from paws_jax.evaluation import accuracy
from paws_jax.training import save_classifier
from tests import untrained_run

# The run and its programs take most of it, not the single tests.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def classifier():
  return untrained_run.classifier()


@pytest.fixture(scope="module")
def test_part():
  return untrained_run.trained().experiment.dataset.test


@pytest.fixture(scope="module")
def predictions(classifier, test_part):
  return classifier.predict(test_part.images)


@pytest.fixture
def saved(classifier, tmp_path):
  classifier.save(tmp_path / "saved")
  return tmp_path / "saved"


def test_accuracy_is_that_of_the_runs_own_evaluation(predictions, test_part):
  row = untrained_run.result()
  assert row["num_test"] == len(predictions)
  assert 0.1 < row["top1"] < 1
  assert np.mean(predictions.classes == test_part.labels) == row["top1"]
  top5 = accuracy.top_k_accuracy(predictions.probabilities, test_part.labels, 5)
  assert top5 == row["top5"]


def test_embeddings_are_those_of_the_run(classifier, test_part):
  trained = untrained_run.trained()
  images = test_part.images[:300]
  want = trained.experiment.embed(trained.params, trained.batch_stats, images)
  np.testing.assert_array_equal(classifier.embed(images), want)


def test_the_bank_is_the_labelled_images(classifier):
  dataset = untrained_run.trained().experiment.dataset
  support_bank = classifier.support_bank
  np.testing.assert_array_equal(support_bank.labels, dataset.labelled.labels)
  np.testing.assert_array_equal(
    support_bank.thumbnails, dataset.labelled.images
  )
  assert support_bank.names[3] == dataset.labelled.name(3)
  assert classifier.class_names == tuple("0123456789")
  assert classifier.origin["step"] == 10


def test_a_run_on_disk_knows_its_labelled_images_again(tmp_path):
  for k in range(4):
    folder = tmp_path / f"class {k // 2}"
    folder.mkdir(exist_ok=True)
    pixels = untrained_run.photograph(20 + k, 31, seed=k)
    Image.fromarray(pixels).save(folder / f"{k}.png")
  config = untrained_run.recipe()
  config.data.update(
    source="folder",
    pipeline="host",
    dir=str(tmp_path),
    image_size=0,
    labels_per_class=2,
  )
  config.views.update(mean=(0.5,) * 3, std=(0.25,) * 3)
  sections = config.to_dict()
  dataset = load_dataset.load(
    config_lib.Data(**sections["data"]),
    config_lib.build_views(sections["views"]),
  )
  encoder = models.create(sections["model"])
  init = jax.jit(functools.partial(encoder.init, train=False))
  variables = init(jax.random.key(0), np.zeros((1, 8, 8, 3), np.float32))
  run = types.SimpleNamespace(
    recipe=config_lib.resolve(config),
    experiment=types.SimpleNamespace(dataset=dataset, temperature=0.1),
    params=variables["params"],
    batch_stats=variables["batch_stats"],
    step=0,
    head=None,
  )
  classifier = save_classifier.from_trained(run)
  assert classifier.support_bank.names == tuple(
    f"class {k // 2}/{k}.png" for k in range(4)
  )
  paths = [tmp_path / name for name in classifier.support_bank.names]
  predictions = classifier.predict(paths)
  np.testing.assert_array_equal(predictions.support_indices[:, 0], range(4))
  np.testing.assert_allclose(predictions.novelty, 0, atol=1e-5)


def test_predictions_say_who_voted(predictions, classifier):
  count = len(predictions)
  probabilities = predictions.probabilities
  assert probabilities.shape == (count, 10)
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
  entropy = -(probabilities * np.log(probabilities)).sum(axis=1)
  np.testing.assert_allclose(predictions.entropy, entropy, rtol=1e-4)
  weights = predictions.support_weights
  assert weights.shape == predictions.support_indices.shape == (count, 3)
  assert np.all(np.diff(weights, axis=1) <= 0)
  # All supports together make the probabilities.
  whole = classifier.predict(
    untrained_run.trained().experiment.dataset.test.images[:4],
    num_supports=100,
  )
  assert whole.support_weights.shape == (4, 20)
  votes = np.zeros((4, 10))
  labels = classifier.support_bank.labels[whole.support_indices]
  for row, label, weight in zip(
    votes, labels, whole.support_weights, strict=True
  ):
    np.add.at(row, label, weight)
  np.testing.assert_allclose(votes, whole.probabilities, rtol=1e-4)


def test_a_support_is_not_novel(classifier):
  dataset = untrained_run.trained().experiment.dataset
  predictions = classifier.predict(dataset.labelled.images)
  np.testing.assert_allclose(predictions.novelty, 0, atol=1e-5)
  assert predictions.novelty.min() >= 0
  nearest = predictions.support_indices[:, 0]
  np.testing.assert_array_equal(nearest, np.arange(20))
  other = classifier.predict([np.zeros((8, 8), np.uint8)])
  assert other.novelty[0] > 1e-4


def test_no_supports_when_none_are_asked_for(classifier, test_part):
  predictions = classifier.predict(test_part.images[:2], num_supports=0)
  assert predictions.support_indices.shape == (2, 0)
  for wrong in (-1, None, 2.5, "3", float("nan"), [3]):
    with pytest.raises(ValueError, match=r"num_supports is .*: give a whole"):
      classifier.predict(test_part.images[:2], num_supports=wrong)


def test_a_list_is_predicted_as_the_array(classifier, test_part, tmp_path):
  images = test_part.images[:4]
  want = classifier.predict(images)
  path = tmp_path / "a.png"
  Image.fromarray(images[3, ..., 0]).save(path)
  mixed = [
    images[0],
    np.repeat(images[1], 3, axis=2),
    Image.fromarray(images[2, ..., 0]),
    path,
  ]
  got = classifier.predict(mixed)
  np.testing.assert_array_equal(got.probabilities, want.probabilities)
  # Another batch in another place: the same up to rounding.
  several = classifier.predict([*mixed] * 20)
  np.testing.assert_allclose(
    several.probabilities[-4:], want.probabilities, rtol=1e-4
  )


def test_saved_and_loaded_it_is_the_same(saved, classifier, test_part):
  loaded = paws_jax.Classifier.load(saved)
  assert loaded.digest == classifier.digest
  assert sorted(p.name for p in saved.iterdir()) == [
    "bank.safetensors",
    "classifier.json",
    "encoder.safetensors",
  ]
  got, want = (c.predict(test_part.images[:8]) for c in (loaded, classifier))
  for field in dataclasses.fields(want):
    np.testing.assert_array_equal(
      getattr(got, field.name), getattr(want, field.name)
    )
  assert loaded.support_bank.names == classifier.support_bank.names
  assert loaded.preprocessing == classifier.preprocessing
  # It is replaced by another one, and nothing is left behind.
  loaded.add_class("new", test_part.images[:2]).save(saved)
  assert classifier_lib.Classifier.load(saved).num_classes == 11
  assert [p.name for p in saved.parent.iterdir()] == ["saved"]


def test_what_is_no_classifier_is_not_overwritten(classifier, tmp_path):
  (tmp_path / "mine.txt").write_text("")
  with pytest.raises(
    ValueError, match=r"holds no classifier .* choose another"
  ):
    classifier.save(tmp_path)
  with pytest.raises(ValueError, match=r"there is no classifier\.json in it"):
    classifier_lib.Classifier.load(tmp_path)


def rewrite(directory, change):
  """Changes a saved classifier's files, sums included."""
  path = directory / "classifier.json"
  settings = json.loads(path.read_text())
  encoder = directory / "encoder.safetensors"
  arrays = safetensors.load_file(encoder)
  change(settings, arrays)
  content = safetensors.save(arrays)
  encoder.write_bytes(content)
  settings["files"]["encoder.safetensors"] = files._sha256(content)
  path.write_text(json.dumps(settings))


def other_model(settings, arrays):
  settings["model"]["output_dim"] = 4


def missing_weight(settings, arrays):
  arrays["params/stranger"] = arrays.pop("params/projection/fc3/bias")


def unknown_model(settings, arrays):
  settings["model"]["name"] = "resnet51"


def newer(settings, arrays):
  settings["version"] = 2


def no_temperature(settings, arrays):
  del settings["temperature"]


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    (other_model, r"not those of wide_resnet10: .*fc3/\w+ is .* instead of"),
    (missing_weight, "fc3/bias is missing, params/stranger is unknown"),
    (unknown_model, "its model is not known here: .*resnet51"),
    (newer, "has the version 2, and 1 is read here"),
    (no_temperature, "no classifier that this version reads: .*temperature"),
  ],
)
def test_another_architecture_is_refused(saved, change, problem):
  rewrite(saved, change)
  with pytest.raises(errors.ClassifierError, match=problem):
    classifier_lib.Classifier.load(saved)


def test_a_field_that_is_newer_has_its_default(saved):
  rewrite(saved, lambda settings, _: settings["model"].pop("init_from"))
  assert classifier_lib.Classifier.load(saved).model["init_from"] == ""


@pytest.mark.parametrize("name", ["bank.safetensors", "encoder.safetensors"])
def test_damaged_files_are_refused(saved, name):
  content = bytearray((saved / name).read_bytes())
  content[-1] ^= 1
  (saved / name).write_bytes(content)
  with pytest.raises(ValueError, match=f"{name} is damaged"):
    classifier_lib.Classifier.load(saved)
  (saved / name).unlink()
  with pytest.raises(ValueError, match=f"{name} cannot be read"):
    classifier_lib.Classifier.load(saved)


def test_damaged_settings_are_refused(saved):
  path = saved / "classifier.json"
  path.write_text(path.read_text()[:100])
  with pytest.raises(ValueError, match="is not JSON"):
    classifier_lib.Classifier.load(saved)


def test_a_class_is_added_without_training(classifier, test_part):
  new = untrained_run.photograph(30, 20, seed=3)
  extended = classifier.add_class("noise", [new, new[:25]])
  assert extended.class_names[-1] == "noise"
  assert len(extended.support_bank) == 22
  assert extended.support_bank.names[-1] == "image 1"
  assert extended.support_bank.thumbnails.shape == (22, 8, 8, 1)
  assert extended.digest != classifier.digest
  predictions = extended.predict([new])
  assert predictions.classes[0] == 10
  assert predictions.support_indices[0, 0] == 20
  # The old one is as it was.
  assert classifier.num_classes == 10
  assert len(classifier.support_bank) == 20


@pytest.mark.parametrize(
  ("name", "problem"),
  [
    ("3", "class '3' is there already.*0, 1, 2, 3, 4 and 5 more"),
    (" ", "' '"),
    (" zebra", "spaces before"),
    ("zebra\n", "spaces before"),
    ("\ud800", "half of a surrogate pair"),
    (None, "called None"),
    (b"zebra", "called b'zebra'"),
  ],
)
def test_class_names_that_clash_are_refused(classifier, name, problem):
  with pytest.raises(ValueError, match=problem):
    classifier.add_class(name, np.zeros((1, 8, 8, 1), np.uint8))


def test_a_class_of_unreadable_images_is_refused(classifier, tmp_path):
  paths = [tmp_path / "a.png", tmp_path / "b.png"]
  paths[0].write_text("no image")
  with pytest.raises(errors.BadImageError, match=r"a\.png: it is not an image"):
    classifier.add_class("new", paths[:1])
  images = image_list.ImageList(paths, classifier.preprocessing)
  with pytest.raises(errors.BadImageError, match="none of its 2 images can be"):
    classifier.add_from("new", images, skip_bad=True)
  Image.new("L", (9, 9)).save(paths[1])
  extended, bad = classifier.add_from("new", images, skip_bad=True)
  assert len(extended.support_bank) == 21
  assert list(bad) == [str(paths[0])]


def test_a_bank_of_one_class_is_refused(classifier):
  support_bank = classifier.support_bank
  same = dataclasses.replace(support_bank, labels=np.full(20, 7, np.int32))
  one = dataclasses.replace(classifier, support_bank=same)
  with pytest.raises(ValueError, match=r"20 supports are of 1 class \(7\)"):
    one.predict(np.zeros((1, 8, 8, 1), np.uint8))


def with_nan(classifier):
  params = jax.tree.map(lambda x: x * np.nan, classifier.variables["params"])
  return dataclasses.replace(
    classifier, variables={**classifier.variables, "params": params}
  )


def test_embeddings_that_are_not_finite_name_the_images(classifier, tmp_path):
  path = tmp_path / "a.png"
  Image.new("L", (9, 9)).save(path)
  with pytest.raises(
    errors.NonFiniteError, match=r"of 1 images .*a\.png\. The"
  ):
    with_nan(classifier).predict([path])
  trained = untrained_run.trained()
  params = with_nan(classifier).variables["params"]
  with pytest.raises(errors.NonFiniteError, match=r"20 labelled .*train 162"):
    save_classifier.from_trained(trained, params=params)


def test_a_head_decides_when_there_is_one(test_part, tmp_path):
  trained = untrained_run.trained()
  size = trained.params["projection"]["fc1"]["bias"].size
  rng = np.random.default_rng(0)
  head = {
    "kernel": rng.normal(size=(size, 10)).astype(np.float32),
    "bias": np.arange(10, dtype=np.float32),
  }
  made = save_classifier.from_trained(trained, head=head)
  made.save(tmp_path / "finetuned")
  classifier = paws_jax.Classifier.load(tmp_path / "finetuned")
  assert isinstance(classifier.head, predictions_lib.Head)
  images = test_part.images[:5]
  features = classifier.embed(images)
  assert features.shape == (5, size)
  assert classifier.support_bank.embeddings.shape == (20, size)
  logits = features @ head["kernel"] + head["bias"]
  predictions = classifier.predict(images)
  np.testing.assert_array_equal(predictions.classes, logits.argmax(axis=1))
  want = np.exp(logits - logits.max(axis=1, keepdims=True))
  want /= want.sum(axis=1, keepdims=True)
  np.testing.assert_allclose(predictions.probabilities, want, rtol=1e-3)
  with pytest.raises(ValueError, match="cannot be added to a fine-tuned head"):
    classifier.add_class("new", images)


def test_the_head_stands_on_the_first_projection_layer(classifier):
  trained = untrained_run.trained()
  size = trained.params["projection"]["fc1"]["bias"].size
  head = predictions_lib.Head(
    np.zeros((size, 10), np.float32), np.zeros(10, np.float32)
  )
  features = dataclasses.replace(classifier, head=head).embed(
    np.zeros((1, 8, 8, 1), np.uint8)
  )
  view = trained.experiment.dataset.eval_view
  crop = (0 - np.float32(view.mean)) / np.float32(view.std)
  want = models.create(classifier.model).apply(
    classifier.variables,
    np.broadcast_to(crop, (1, 8, 8, 1)),
    train=False,
    num_projection_layers=1,
    method="features",
  )
  np.testing.assert_allclose(features, want, rtol=1e-4, atol=1e-5)


def test_the_package_gives_the_class_and_nothing_else():
  assert paws_jax.Classifier is classifier_lib.Classifier
  with pytest.raises(AttributeError, match="no attribute 'Klassifier'"):
    _ = paws_jax.Klassifier


def test_a_file_outside_of_the_directory_is_not_read(saved):
  path = saved / "classifier.json"
  settings = json.loads(path.read_text())
  settings["files"]["../secret"] = "0"
  path.write_text(json.dumps(settings))
  with pytest.raises(ValueError, match=r"another file: '\.\./secret'"):
    classifier_lib.Classifier.load(saved)


def test_it_is_shown_in_five_lines(classifier):
  lines = repr(classifier).splitlines()
  assert len(lines) == 5
  assert max(map(len, lines)) < 200
  for known in ("10 classes: '0', '1'", "digits", "vote", "wide_resnet"):
    assert known in repr(classifier)
  many = tuple(f"{k}{'w' * 300}\n" for k in range(500))
  many = dataclasses.replace(classifier, class_names=many, origin={})
  assert len(repr(many).splitlines()) == 5
  assert len(repr(many)) < 1000
  assert len(repr(classifier.support_bank)) < 100


@pytest.mark.parametrize("copied", [pickle.dumps, copy.deepcopy])
def test_it_can_be_pickled_after_it_has_predicted(
  classifier, predictions, test_part, copied
):
  assert "_device" in vars(classifier)
  other = copied(classifier)
  if isinstance(other, bytes):
    other = pickle.loads(other)
  assert other.digest == classifier.digest
  images = test_part.images[:4]
  again = other.predict(images)
  np.testing.assert_array_equal(
    again.probabilities, classifier.predict(images).probabilities
  )


def test_predictions_know_their_classes(classifier, predictions):
  assert predictions.class_names == classifier.class_names
  assert predictions.predicted_classes == [
    classifier.class_names[k] for k in predictions.classes
  ]
  assert repr(predictions).startswith(f"Predictions({len(predictions)} images")
  assert len(repr(predictions)) < 200
