"""A type checker knows the types of the installed package (`py.typed`)."""

import re
import subprocess
import sys
import venv

import pytest

import paws_jax

pytestmark = pytest.mark.slow

# What a user might write; comments name the errors that there are.
SCRIPT = """
import pathlib
from typing import assert_type

import jax
import jax.numpy as jnp
import numpy as np

import paws_jax
from paws_jax import augment, config, errors, losses, models, optim
from paws_jax.classifier import Classifier
from paws_jax.classifier.predictions import Predictions


def classify(run: pathlib.Path, images: list[pathlib.Path]) -> list[str]:
  try:
    classifier = paws_jax.Classifier.load(run / "classifier")
  except errors.ClassifierError as error:
    raise SystemExit(str(error)) from None
  assert_type(classifier, Classifier)
  paws_jax.PawsClassifier(recipe=3).fit(images)  # arg-type
  predictions = classifier.predict(images)
  assert_type(predictions, Predictions)
  assert_type(classifier.embed(images), np.ndarray)
  classifier.add_class("zebra", images).save(run / "larger")
  classifier.save()  # call-arg
  classifier.predict(images, num_supports="3")  # arg-type
  return predictions.predicted_classes


def loss(views: jax.Array, supports: jax.Array, rows: jax.Array) -> jax.Array:
  probs = losses.soft_nearest_neighbours(
    views, supports, rows, temperature=0.1
  )
  losses.soft_nearest_neighbours(views, supports, rows)  # call-arg
  return losses.cross_entropy(probs, probs)


def network(key: jax.Array) -> jax.Array:
  encoder = models.create(config.Model(name="small_resnet", output_dim=64))
  variables = encoder.init(key, jnp.zeros((1, 16, 16, 1)), train=False)
  optimizer, _ = optim.create(
    config.Optim(), steps_per_epoch=10, total_steps=100
  )
  optimizer.init(variables["params"])
  config.Model(width="2")  # arg-type
  return augment.normalize(jnp.zeros((1, 16, 16, 1)), (0.5,), (0.5,))


def strings(version: str) -> None:
  assert_type(paws_jax.__version__, str)
  paws_jax.Clasifier.load(version)  # attr-defined
"""


@pytest.fixture
def python(tmp_path):
  """A Python that has the package and all that the tests have."""
  package = tmp_path / "site" / "paws_jax"
  package.parent.mkdir()
  package.symlink_to(*paws_jax.__path__)
  venv.create(tmp_path / "env")
  (site,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
  others = [path for path in sys.path if path.endswith("site-packages")]
  paths = [str(package.parent), *others]
  (site / "paths.pth").write_text("".join(f"{path}\n" for path in paths))
  return tmp_path / "env" / "bin" / "python"


def test_a_typed_script_is_checked(python, tmp_path):
  (tmp_path / "script.py").write_text(SCRIPT)
  mypy = (sys.executable, "-m", "mypy", "--strict", "--cache-dir=cache")
  result = subprocess.run(
    [*mypy, f"--python-executable={python}", "script.py"],
    cwd=tmp_path,
    capture_output=True,
    text=True,
    timeout=600,
    check=False,
  )
  pattern = r"^script\.py:(\d+): error: .*\[([a-z-]+)\]$"
  found = re.findall(pattern, result.stdout, re.MULTILINE)
  expected = [
    (str(number), line.partition("  # ")[2])
    for number, line in enumerate(SCRIPT.splitlines(), start=1)
    if "  # " in line
  ]
  assert found == expected, result.stdout + result.stderr
  assert len(expected) == 6
