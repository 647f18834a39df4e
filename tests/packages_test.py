"""Packages that are missing are named before anything else happens."""

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import packages
from paws_jax.runs import requirements
from paws_jax.tasks import doctor
from paws_jax.tasks import pretrain
from paws_jax.training import experiment
from tests import tiny_recipe


@pytest.fixture
def light(monkeypatch):
  """Makes packages.is_installed answer as in a light installation."""
  monkeypatch.setattr(packages, "is_installed", lambda name: name == "numpy")


def test_what_is_installed_is_enough():
  packages.require("this", "numpy", "jax")
  assert not packages.is_installed("no_such_package")


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"data.source": "tfds", "data.tfds_name": "mnist"},
      "data.source='tfds' needs tensorflow and tensorflow_datasets, which this "
      "installation does not have: pip install 'tensorflow-cpu>=2.21' "
      "tensorflow-datasets importlib_resources",
    ),
    ({"data.decoder": "tensorflow"}, "data.decoder='tensorflow' needs"),
  ],
)
def test_a_recipe_says_what_it_needs(light, changes, words):
  config = tiny_recipe.get_config()
  config.update_from_flattened_dict(changes)
  recipe = config_lib.resolve(config)
  for check in (requirements.check, experiment.create):
    with pytest.raises(errors.MissingPackageError) as caught:
      check(recipe)
    assert words in str(caught.value)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (
      {"log.writers": ("jsonl", "wandb")},
      "wandb of log.writers needs wandb, which this installation does not "
      "have: pip install wandb",
    ),
    ({"log.writers": ("mlflow", "jsonl")}, "pip install mlflow"),
    ({"log.writers": ("jsonl", "tensorboard")}, "pip install tensorboard"),
    ({"log.tensorboard": True}, "tensorboard of log.writers needs"),
  ],
)
def test_a_logger_that_is_missing_is_named_before_training(
  light, tmp_path, changes, words
):
  config = tiny_recipe.get_config()
  config.update_from_flattened_dict(changes)
  with pytest.raises(errors.MissingPackageError) as caught:
    pretrain.prepare(config, str(tmp_path / "run"))
  assert words in str(caught.value)
  assert not (tmp_path / "run").exists()
  # A run that another computer has logged can be used without it.
  requirements.check(config_lib.resolve(config))


@pytest.mark.slow
def test_the_doctor_names_a_logger_that_is_missing(light, tmp_path, capsys):
  config = tiny_recipe.get_config()
  config.log.writers = ("jsonl", "wandb")
  assert doctor.run(config, str(tmp_path), train_command="") == 1
  assert "pip install wandb" in capsys.readouterr().out


def test_other_recipes_need_nothing(light):
  requirements.check(config_lib.resolve(tiny_recipe.get_config()))
