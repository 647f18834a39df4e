"""Whether an image is of a known class, from the recipe to the table."""

import csv
import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import files
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.tasks import predict
from paws_jax.training import save_classifier
from tests import random_classifier
from tests import untrained_run

TEMPERATURE = 0.25


def make(**changes):
  return dataclasses.replace(random_classifier.make(), **changes)


def test_images_have_it_in_a_table_and_in_python(tmp_path, capsys):
  plain, classifier = make(), make(in_domain_temperature=TEMPERATURE)
  images = tmp_path / "images"
  images.mkdir()
  pixels = random_classifier.pixels((9, 12), 3)[..., 0]
  for i, image in enumerate(pixels):
    Image.fromarray(image).save(images / f"{i}.png")
  output = tmp_path / "p.csv"

  def rows(made):
    made.save(tmp_path / "saved")
    flags = {"images": str(images), "classifier": str(tmp_path / "saved")}
    flags |= {"add_class": [], "head": "soft_nn", "output": str(output)}
    assert predict.run(predict.prepare(None, "", **flags)) == 0
    with output.open(newline="") as file:
      return list(csv.DictReader(file))

  assert "in_domain" not in rows(plain)[0]
  assert "p.old.csv" not in capsys.readouterr().out
  found = rows(classifier)
  # The table of before has no such column, and stays whole beside it.
  assert "of another classifier" in capsys.readouterr().out
  assert "in_domain" not in (tmp_path / "p.old.csv").read_text()
  predictions = classifier.predict(list(pixels))
  assert predictions.in_domain.dtype == np.float32
  np.testing.assert_allclose(
    predictions.in_domain,
    np.exp(-predictions.novelty / TEMPERATURE),
    rtol=1e-5,
  )
  assert 0 < predictions.in_domain.min() < predictions.in_domain.max() < 1
  for row, want in zip(found, predictions.in_domain, strict=True):
    assert float(row["in_domain"]) == pytest.approx(want, rel=1e-4)
  assert plain.predict(list(pixels)).in_domain is None


def test_a_directory_says_it_only_where_there_is_one(tmp_path):
  plain, classifier = make(), make(in_domain_temperature=TEMPERATURE)
  for made in (plain, classifier):
    made.save(tmp_path)
    loaded = classifier_lib.Classifier.load(tmp_path)
    assert loaded.in_domain_temperature == made.in_domain_temperature
    assert loaded.digest == made.digest
    stored = json.loads((tmp_path / files.SETTINGS).read_text())
    # Rows of classifiers that were saved before it was known stay theirs.
    assert ("in_domain_temperature" in stored) == (made is classifier)
  assert plain.digest != classifier.digest


@pytest.mark.parametrize(
  "value", [0, -1.0, float("inf"), float("nan"), "3", True]
)
def test_what_is_no_temperature_is_refused(tmp_path, value):
  with pytest.raises(errors.ClassifierError, match="nothing is written"):
    make(in_domain_temperature=value).save(tmp_path / "saved")
  assert not list(tmp_path.iterdir())
  # Nor is a directory read that was changed by hand.
  make(in_domain_temperature=2.0).save(tmp_path)
  settings = tmp_path / files.SETTINGS
  stored = json.loads(settings.read_text()) | {"in_domain_temperature": value}
  settings.write_text(json.dumps(stored))
  for read in (classifier_lib.Classifier.load, files.settings_in):
    with pytest.raises(
      errors.ClassifierError, match=r"in_domain|no JSON number"
    ):
      read(tmp_path)


@pytest.mark.slow
def test_it_is_the_recipes_for_a_method_that_tells(monkeypatch):
  trained = untrained_run.trained()
  support_bank = random_classifier.make().support_bank
  # Embedding the labelled images would be most of the time.
  monkeypatch.setattr(
    support_bank_lib,
    "embed_labelled",
    lambda *args, **options: support_bank,
  )

  def of(name, **options):
    config = untrained_run.recipe()
    config.method = config_lib.method_section(name)
    if name == "ropaws":
      config.method.in_domain_temperature = TEMPERATURE
    run = dataclasses.replace(trained, recipe=config_lib.resolve(config))
    made = save_classifier.from_trained(run, **options)
    return made.in_domain_temperature

  assert of("ropaws") == TEMPERATURE
  assert of("paws") is None
  assert of("suncet") is None
  head = {"kernel": np.zeros((8, 10)), "bias": np.zeros(10)}
  assert of("ropaws", head=head) is None
