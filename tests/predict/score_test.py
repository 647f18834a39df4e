"""`--task=evaluate --test`: numbers, rows and files of images given later."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.predict import labelled_set
from paws_jax.predict import score
from paws_jax.report import accuracy
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import results
from paws_jax.tasks import evaluate
from tests import own_data_runs
from tests import random_classifier

pytestmark = pytest.mark.unoptimized


@pytest.fixture
def labelled(tmp_path):
  """A folder of each class of a random classifier: noise, of several sizes."""
  for k, name in enumerate(random_classifier.CLASSES * 3):
    pixels = random_classifier.pixels((20 + k, 25, 3), 1, seed=k)[0]
    path = tmp_path / "new" / name / f"{k}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
  return tmp_path / "new"


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_vote_is_that_of_predict(on_disk, labelled):
  color = {"shape": (8, 8, 3), "mean": (0.3,) * 3, "std": (0.4,) * 3}
  made = random_classifier.make(on_disk=on_disk, **(color if on_disk else {}))
  images = labelled_set.find(str(labelled), made.class_names)
  vote, *nearest = score.score(made, images, part="new")
  predicted = made.predict([str(labelled / n) for n in images.files.names])
  np.testing.assert_allclose(
    vote.probabilities, predicted.probabilities, atol=1e-5
  )
  assert vote.top(1) == np.mean(predicted.classes == images.labels)
  assert [each.title for each in nearest] == [
    "1-NN",
    "7-NN (all labelled, not 20)",
  ]


@pytest.mark.parametrize(
  ("kind", "protocol", "embedding"),
  [("head", "linear_head", "h"), ("class_head", "class_head", "trunk")],
)
def test_a_linear_head_decides_where_there_is_one(
  labelled, kind, protocol, embedding
):
  made = random_classifier.make(**{kind: True})
  images = labelled_set.find(str(labelled), made.class_names)
  (outcome,) = score.score(made, images, part="new")
  predicted = made.predict([str(labelled / n) for n in images.files.names])
  assert outcome.protocol == protocol
  assert outcome.settings["embedding"] == embedding
  np.testing.assert_array_equal(outcome.ranks[:, 0], predicted.classes)


def test_an_image_that_cannot_be_read_is_named(labelled):
  made = random_classifier.make()
  (labelled / "ant" / "0.png").write_bytes(b"no image")
  images = labelled_set.find(str(labelled), made.class_names)
  with pytest.raises(errors.BadImageError, match=r"ant/0\.png"):
    list(score.score(made, images, part="new"))


def _test_images(layout):
  """The test images of the run, as files; of the run in memory new ones."""
  if layout == "folders":
    return "photos/test"
  for k, pixels in enumerate(random_classifier.pixels((8, 8, 1), 4)):
    path = f"new/{k % 2}/{k}.png"
    own_data_runs.save_image(path, pixels[..., 0])
  return "new"


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["folders", "memory"])
def test_a_finished_run_on_images_that_came_later(
  layout, tmp_path, monkeypatch, capsys
):
  monkeypatch.chdir(own_data_runs.write(tmp_path))
  run = own_data_runs.make(own_data_runs.config(layout), "run")
  recipe = recipe_lib.load("run")
  assert evaluate.run(evaluate.prepare(recipe, "run")) == 0
  own = results.read_results(run)
  given = _test_images(layout)
  assert evaluate.run(evaluate.prepare(recipe, "run", test=given)) == 0
  rows = results.read_results(run)[len(own) :]
  assert [row["protocol"] for row in rows] == ["soft_nn", "knn", "knn"]
  for row in rows:
    assert row["part"] == f"{given.split('/')[-1]} (--test)"
    assert row["test"] == str(tmp_path / given)
    assert row["split_hash"] == own[0]["split_hash"]
    assert row["step"] == own[0]["step"]
  if layout == "folders":
    (vote,) = (r for r in own if r["protocol"] == "soft_nn")
    assert rows[0]["top1"] == vote["top1"]
    assert rows[0]["per_class_top1"] == vote["per_class_top1"]
    np.testing.assert_allclose(rows[0]["ece"], vote["ece"], atol=1e-3)
  # The tables of the run's own evaluation stay.
  (directory,) = (p for p in (run / "evaluation").iterdir() if p.is_dir())
  assert (directory / "confusion.csv").exists()
  assert (run / "evaluation" / "confusion.csv").exists()
  assert str(directory) in capsys.readouterr().out
  best = accuracy.best_known(accuracy.accuracies(own + rows))
  assert best.part == "test"
  # Once more adds nothing; training data that are gone do not matter.
  shutil.rmtree("idx" if layout == "memory" else "photos/labelled")
  assert evaluate.run(evaluate.prepare(recipe, "run", test=given)) == 0
  assert len(results.read_results(run)) == len(own) + len(rows)
  json.loads((run / results.RESULTS).read_text())


def test_a_run_that_has_not_trained_is_refused(tmp_path, monkeypatch):
  monkeypatch.chdir(own_data_runs.write(tmp_path))
  with pytest.raises(errors.WorkdirError, match="holds no run"):
    evaluate.prepare(
      own_data_runs.config("folders"), "nowhere", test="photos/test"
    )
