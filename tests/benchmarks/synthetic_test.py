"""Recipes of benchmarks, on their own images or on random ones."""

import jax
import pytest

from benchmarks import synthetic
from tests import tiny_recipe


def _recipe(**changes):
  config = tiny_recipe.get_config()
  config.model.name = "small_resnet"
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


def test_a_recipes_own_images_are_taken():
  assert synthetic.experiment(_recipe()).dataset.name == "digits"
  found = synthetic.experiment(_recipe(), always_random=True)
  assert found.dataset.name == "random"


def test_random_images_where_there_are_none(capsys, tmp_path):
  config = _recipe(data__source="idx", data__dir=str(tmp_path / "away"))
  found = synthetic.experiment(config, devices=jax.devices()[:2])
  assert found.dataset.name == "random"
  assert "data are not at hand (" in capsys.readouterr().out
  assert found.trainer.mesh.size == 2
  image = found.pipeline.input_shapes(1).images
  assert image.shape == (256, 8, 8, 1)


def test_random_images_are_as_many_as_the_recipe_has_where_asked(
  capsys, tmp_path
):
  config = _recipe(
    data__source="idx",
    data__dir=str(tmp_path / "away"),
    # Of a test image: there would be too many of these pixels.
    views__eval_resize=40,
  )
  one = {"devices": jax.devices()[:1]}
  found = synthetic.experiment(config, whole_epoch=True, **one)
  assert found.pipeline.steps_per_epoch == 60_000 // 256
  image = found.pipeline.input_shapes(1).images
  assert image.shape == (60_000, 28, 28, 1)
  assert "not known" not in capsys.readouterr().out
  few = synthetic.experiment(config, **one)
  assert few.pipeline.input_shapes(1).images.shape == (256, 40, 40, 1)


def test_that_the_length_of_an_epoch_is_not_known_is_said(capsys):
  found = synthetic.experiment(
    _recipe(), always_random=True, whole_epoch=True, devices=jax.devices()[:1]
  )
  assert found.pipeline.steps_per_epoch == 1
  told = capsys.readouterr().out
  assert "of several sizes, or how many there are is not known" in told


@pytest.mark.parametrize(
  ("source", "name", "classes"),
  [("digits", "", 10), ("tfds", "cifar100:3.0.2", 100)],
)
def test_random_images_of_all_classes(source, name, classes):
  changes = {"data__source": source, "data__tfds_name": name}
  config = _recipe(support__classes_per_step=0, **changes)
  found = synthetic.experiment(
    config, always_random=True, devices=jax.devices()[:1]
  )
  assert found.dataset.num_classes == classes
  # For what is printed of the recipe.
  assert config.support.classes_per_step == classes


def test_images_of_the_host_pipeline_become_random_ones():
  config = _recipe(
    data__source="folder",
    data__pipeline="host",
    data__canvas_size=24,
    data__labels_per_class=0,
    views__mean=(0.5,) * 3,
    views__std=(0.2,) * 3,
    support__classes_per_step=0,
    train__batch_size=16,
  )
  found = synthetic.experiment(config, devices=jax.devices()[:2])
  assert found.dataset.name == "random"
  assert found.dataset.num_classes == 10
  assert found.pipeline.input_shapes(1).images.shape == (32, 24, 24, 3)
