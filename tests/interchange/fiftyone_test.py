"""FiftyOne: samples with predictions, embeddings and supports; and files."""

import importlib.util
import json
import os
import sys
import types

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.interchange import fiftyone as to_fiftyone
from paws_jax.predict import embeddings as embeddings_lib

# FiftyOne's own, where it is installed.
pytestmark = pytest.mark.filterwarnings("ignore")

HEADER = (
  "path,predicted_class,probability,top1_class,top1_probability,entropy,"
  "novelty,support_1,support_1_class,support_1_weight,support_2,"
  "support_2_class,support_2_weight"
)
NAMES = ("a.png", "deep/b.tif")


class _Made:
  """What it was made of, as FiftyOne's samples and labels."""

  def __init__(self, **fields):
    vars(self).update(fields)


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
  """FiftyOne if it is installed; otherwise classes of the same arguments."""
  monkeypatch.setenv("HOME", str(tmp_path))
  monkeypatch.setenv("FIFTYONE_DO_NOT_TRACK", "1")
  if importlib.util.find_spec("fiftyone") is None:
    names = ("Classification", "Classifications", "Sample")
    fake = types.SimpleNamespace(**dict.fromkeys(names, _Made))
    monkeypatch.setitem(sys.modules, "fiftyone", fake)


@pytest.fixture
def table(tmp_path):
  for name in NAMES:
    path = tmp_path / "photos" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
  numbers = "0.75,cat,0.75,0.5,0.25,l/1.png,cat,0.6,l/2.png,dog,0.4"
  lines = [HEADER, *(f"{name},cat,{numbers}" for name in NAMES)]
  path = tmp_path / "predictions.csv"
  path.write_text("\n".join(lines) + "\n")
  about = {"images": str(tmp_path / "photos"), "columns": []}
  (tmp_path / "predictions.csv.json").write_text(json.dumps(about))
  return path


def write_embeddings(path, names=NAMES, labels=None):
  vectors = np.arange(3 * len(names), dtype=np.float32).reshape(-1, 3)
  with embeddings_lib.EmbeddingsFile(
    path, {}, images=names, labels=labels or {}, metadata={}
  ) as file:
    file.write(embeddings_lib.rows(names, vectors))
    file.finish()
  return path


def test_samples_have_predictions_and_supports(table, tmp_path):
  first, second = to_fiftyone.samples(table)
  assert os.path.samefile(second.filepath, tmp_path / "photos" / "deep/b.tif")
  assert first.prediction.label == "cat"
  assert first.prediction.confidence == 0.75
  assert first.entropy == 0.5
  assert first.novelty == 0.25
  supports = [
    (vote.label, vote.confidence, vote.image)
    for vote in first.supports.classifications
  ]
  assert supports == [("cat", 0.6, "l/1.png"), ("dog", 0.4, "l/2.png")]


def test_samples_have_embeddings_and_labels(table, tmp_path):
  path = write_embeddings(tmp_path / "e.npz", labels={NAMES[1]: "dog"})
  first, second = to_fiftyone.samples(table, embeddings=path)
  np.testing.assert_array_equal(second.embedding, [3, 4, 5])
  assert second.ground_truth.label == "dog"
  with pytest.raises(AttributeError):
    _ = first.ground_truth.label


def test_an_image_without_embedding_is_named(table, tmp_path):
  path = write_embeddings(tmp_path / "e.npz", NAMES[:1])
  with pytest.raises(
    errors.InputError, match=r"no embedding of 1 of 2.*b\.tif"
  ):
    to_fiftyone.samples(table, embeddings=path)


def test_the_package_is_asked_for(table, monkeypatch):
  monkeypatch.setitem(sys.modules, "fiftyone", None)
  with pytest.raises(errors.MissingPackageError, match="pip install fiftyone"):
    to_fiftyone.samples(table)


def test_files_name_images_and_classes(table, tmp_path):
  assert to_fiftyone.write_dataset(table, tmp_path / "out") == 2
  data = json.loads((tmp_path / "out" / "data.json").read_text())
  assert data == {
    "1.png": str(tmp_path / "photos" / "a.png"),
    "2.tif": str(tmp_path / "photos" / "deep/b.tif"),
  }
  labels = json.loads((tmp_path / "out" / "labels.json").read_text())
  target = {
    "label": 0,
    "confidence": 0.75,
    "attributes": {"entropy": 0.5, "novelty": 0.25},
  }
  assert labels == {"classes": ["cat"], "labels": {"1": target, "2": target}}


def test_files_that_were_changed_are_kept(table, tmp_path):
  to_fiftyone.write_dataset(table, tmp_path)
  (tmp_path / "labels.json").write_text("mine")
  to_fiftyone.write_dataset(table, tmp_path)
  assert (tmp_path / "labels.old.json").read_text() == "mine"


def test_fiftyone_reads_the_files(table, tmp_path):
  importers = pytest.importorskip("fiftyone.utils.data.importers")
  to_fiftyone.write_dataset(table, tmp_path / "out")
  importer = importers.FiftyOneImageClassificationDatasetImporter(
    dataset_dir=str(tmp_path / "out"), data_path="data.json"
  )
  with importer:
    (first, _, label), (second, _, _) = importer
  assert os.path.samefile(first, tmp_path / "photos" / "a.png")
  assert os.path.samefile(second, tmp_path / "photos" / "deep/b.tif")
  assert (label.label, label.confidence) == ("cat", 0.75)
