"""A fit to images in memory, and all that can be asked of it."""

import pickle

import numpy as np
import pytest
import sklearn.base
import sklearn.exceptions
import sklearn.utils.validation
from PIL import Image

import paws_jax
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.estimator import estimator as estimator_lib
from paws_jax.estimator import scoring
from tests.estimator import tiny_fit

pytestmark = pytest.mark.unoptimized


def unfitted(**fields):
  return paws_jax.PawsClassifier(
    tiny_fit.RECIPE, verbose=False, **{**tiny_fit.FIELDS, **fields}
  )


@pytest.fixture(scope="module")
def fitted():
  y = np.array(tiny_fit.labels(), object)
  return unfitted().fit(tiny_fit.images()[..., 0], y)


def test_the_class_is_imported_when_it_is_used():
  assert paws_jax.PawsClassifier is estimator_lib.PawsClassifier


def test_fit_says_nothing_without_verbose(capsys, fitted):
  assert capsys.readouterr().out == ""
  assert fitted.result_["num_labels"] == 16
  assert fitted.result_["steps"] == 2


def test_classes_are_predicted(fitted):
  images = tiny_fit.images()
  assert fitted.classes_.tolist() == ["bright", "dark"]
  wanted = [("dark", "bright")[i % 2] for i in range(24)]
  assert fitted.predict(images).tolist() == wanted
  assert fitted.score(images, tiny_fit.labels()) == 1.0
  weights = np.where(np.arange(24) % 2, 3.0, 1.0)
  assert fitted.score(images, ["dark"] * 24, weights) == 0.25


def test_probabilities_are_in_the_order_of_the_classes(fitted):
  probabilities = fitted.predict_proba(tiny_fit.images(4))
  assert probabilities.shape == (4, 2)
  np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
  assert (probabilities[::2, 1] > 0.5).all()


@pytest.mark.parametrize(
  "convert",
  [
    lambda x: x,
    lambda x: x[..., 0],
    list,
    lambda x: [Image.fromarray(image[..., 0]) for image in x],
  ],
)
def test_predictions_do_not_depend_on_how_images_are_given(fitted, convert):
  images = tiny_fit.images(6)
  np.testing.assert_array_equal(
    fitted.predict_proba(convert(images)),
    fitted.predict_proba(images),
  )


def test_files_of_a_folder_are_predicted(fitted, tmp_path):
  images = tiny_fit.images(6)
  for i, image in enumerate(images):
    Image.fromarray(image[..., 0]).save(tmp_path / f"{i}.png")
  np.testing.assert_array_equal(
    fitted.predict(tmp_path), fitted.predict(images)
  )


def test_embeddings_are_those_of_the_classifier(fitted):
  images = tiny_fit.images(3)
  wanted = fitted.classifier_.embed(images)
  assert wanted.dtype == np.float32
  np.testing.assert_array_equal(fitted.transform(images), wanted)
  np.testing.assert_array_equal(fitted.embed(images), wanted)


def test_neighbors_are_the_labelled_images_that_vote(fitted):
  images = tiny_fit.images()
  labels = tiny_fit.labels()
  assert fitted.support_.tolist() == [i for i in range(24) if i % 3 != 2]
  distances, indices = fitted.kneighbors(images, n_neighbors=2)
  assert distances.shape == indices.shape == (24, 2)
  nearest = fitted.support_[indices]
  # A labelled image is the nearest to itself.
  np.testing.assert_array_equal(nearest[fitted.support_, 0], fitted.support_)
  np.testing.assert_allclose(distances[fitted.support_, 0], 0, atol=1e-5)
  assert [labels[i] for i in nearest[:, 1]] == fitted.predict(images).tolist()
  votes = fitted.classifier_.predict(images, num_supports=1).support_indices
  only = fitted.kneighbors(images, n_neighbors=1, return_distance=False)
  np.testing.assert_array_equal(only, votes)


def test_a_saved_estimator_is_the_same(fitted, tmp_path):
  fitted.save(tmp_path / "saved")
  loaded = paws_jax.PawsClassifier.load(tmp_path / "saved")
  images = tiny_fit.images()
  np.testing.assert_array_equal(
    loaded.predict_proba(images), fitted.predict_proba(images)
  )
  np.testing.assert_array_equal(loaded.support_, fitted.support_)
  np.testing.assert_array_equal(loaded.classes_, fitted.classes_)
  assert loaded.get_params() == fitted.get_params() | {"verbose": True}
  # Other programs read it, too.
  read = classifier_lib.Classifier.load(tmp_path / "saved")
  assert read.predict(images[:2]).predicted_classes == ["dark", "bright"]


def test_a_classifier_with_another_class_is_read(fitted, tmp_path):
  grey = np.full((2, 8, 8, 1), 120, np.uint8)
  fitted.classifier_.add_class("a grey one", grey).save(tmp_path / "more")
  loaded = paws_jax.PawsClassifier.load(tmp_path / "more")
  assert loaded.classes_.tolist() == ["a grey one", "bright", "dark"]
  names = list(loaded.classifier_.class_names)
  assert names == ["bright", "dark", "a grey one"]
  wanted = loaded.classifier_.predict(grey).probabilities
  np.testing.assert_array_equal(
    loaded.predict_proba(grey), wanted[:, [2, 0, 1]]
  )
  assert not hasattr(loaded, "support_")


def test_a_pickled_estimator_is_the_same(fitted):
  images = tiny_fit.images(4)
  before = fitted.predict_proba(images)
  copy = pickle.loads(pickle.dumps(fitted))
  np.testing.assert_array_equal(copy.predict_proba(images), before)


@pytest.mark.parametrize(
  ("X", "words"),
  [
    (tiny_fit.images() / 255, r"X has the dtype float64"),
    (tiny_fit.images()[0], r"looks like one image"),
    ([], "X is empty"),
  ],
)
@pytest.mark.parametrize(
  "method", ["predict", "predict_proba", "transform", "kneighbors"]
)
def test_what_is_no_image_is_refused(fitted, method, X, words):
  with pytest.raises(errors.InputError, match=words):
    getattr(fitted, method)(X)


def test_scoring_needs_labels_of_the_same_kind(fitted):
  images = tiny_fit.images(2)
  with pytest.raises(errors.InputError, match="give both as texts"):
    fitted.score(images, [0, 1])
  with pytest.raises(errors.InputError, match="y is missing"):
    fitted.score(images)
  with pytest.raises(errors.InputError, match="none of the 2 images"):
    fitted.score(images, [-1, None])
  with pytest.raises(errors.InputError, match="X holds 2 images but y 3"):
    fitted.score(images, ["dark"] * 3)


@pytest.mark.parametrize(
  ("weights", "words"),
  [
    ([1, 2, 3], r"has the shape \[3\] but X holds 4 images"),
    (np.ones((4, 1)), r"has the shape \[4, 1\]"),
    (2.0, r"has the shape \[\]"),
    (["a"] * 4, "must hold finite numbers"),
    ([1, 1, np.nan, 1], "must hold finite numbers"),
    ([1, -1, 1, 1], "must hold finite numbers"),
    ([0, 0, 0, 7], "is 0 for all images that have a label"),
  ],
)
def test_weights_that_are_none_are_refused(weights, words):
  predicted = np.array(["a", "b", "a", "b"])
  with pytest.raises(errors.InputError, match=f"^sample_weight {words}"):
    scoring.accuracy(
      predicted, ["a", "b", "b", None], classes=predicted, weights=weights
    )


def test_the_weight_of_an_image_without_a_label_does_not_matter():
  predicted = np.array(["a", "b", "a", "b"])
  accuracy = scoring.accuracy(
    predicted,
    ["a", "b", "b", None],
    classes=predicted,
    weights=[1, 1, 2, np.nan],
  )
  assert accuracy == 0.5


@pytest.mark.parametrize(
  "call",
  [
    lambda model, paths: model.predict(paths[0].parent),
    lambda model, paths: model.predict_proba(paths),
    lambda model, paths: model.transform(paths),
    lambda model, paths: model.classifier_.predict(paths),
    lambda model, paths: model.classifier_.add_class("new", paths),
  ],
)
def test_an_image_that_cannot_be_read_is_named(fitted, tmp_path, call):
  paths = [tmp_path / name for name in ("a.png", "b.png")]
  Image.fromarray(tiny_fit.images(1)[0, ..., 0]).save(paths[0])
  paths[1].write_text("no image")
  with pytest.raises(
    errors.BadImageError, match=r"b\.png: it is not .*leave it out \(move it"
  ):
    call(fitted, paths)


@pytest.mark.parametrize("count", [0, 17])
def test_neighbors_that_there_are_not_are_refused(fitted, count):
  with pytest.raises(errors.InputError, match="from 1 to 16"):
    fitted.kneighbors(tiny_fit.images(2), n_neighbors=count)


@pytest.mark.parametrize(
  "call",
  [
    lambda model: model.predict(tiny_fit.images(2)),
    lambda model: model.predict_proba(tiny_fit.images(2)),
    lambda model: model.transform(tiny_fit.images(2)),
    lambda model: model.kneighbors(tiny_fit.images(2)),
    lambda model: model.score(tiny_fit.images(2), [0, 1]),
    lambda model: model.save("nowhere"),
    sklearn.utils.validation.check_is_fitted,
  ],
)
def test_nothing_is_predicted_before_a_fit(call):
  with pytest.raises(sklearn.exceptions.NotFittedError):
    call(unfitted())


def test_the_error_of_no_fit_is_one_for_users():
  with pytest.raises(errors.UserError, match=r"call fit\(X, y\) first"):
    unfitted().predict(tiny_fit.images(2))


@pytest.mark.parametrize(
  ("X", "y", "words"),
  [
    (tiny_fit.images(), None, "y is missing"),
    (tiny_fit.images(), [-1] * 24, "none of the 24 images a label"),
    (tiny_fit.images(), [4] * 24, r"one class only \(4\)"),
    (tiny_fit.images(), [0, 1], "X holds 24 images but y 2 labels"),
    (tiny_fit.images(4), [0, 1] * 2, "train.batch_size is 11 but there are 4"),
    (tiny_fit.images(channels=3), [0, 1] * 12, r"one per channel"),
  ],
)
def test_data_that_cannot_be_trained_on_are_refused(X, y, words):
  with pytest.raises(errors.InputError, match=words):
    unfitted().fit(X, y)


def test_grey_images_become_color_where_the_recipe_wants_it():
  y = [0, 1] * 12
  # Refused for its batch, after the channels: no step is needed.
  with pytest.raises(errors.InputError, match=r"train\.batch_size is 99"):
    unfitted(**tiny_fit.COLOR, **{"train.batch_size": 99}).fit(
      tiny_fit.images(), y
    )


def test_a_failed_fit_leaves_the_estimator_as_it_was(fitted):
  before = fitted.classifier_
  with pytest.raises(errors.InputError):
    fitted.fit(tiny_fit.images(), [4] * 24)
  assert fitted.classifier_ is before
