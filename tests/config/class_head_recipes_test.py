"""Recipes of the methods with a class head: what their texts promise."""

import importlib.util
import pathlib

import pytest

from paws_jax import config as config_lib
from paws_jax.config import rand_augment

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
# Training images of the data.
IMAGES = {"digits": 1437, "cifar10": 50_000, "imagenet2012": 1_281_167}
NAMES = ("fixmatch", "uda", "mpl", "mean_teacher", "pseudo_label", "supervised")
PUBLISHED = [
  *((name, "4000") for name in NAMES),
  *((name, "imagenet") for name in NAMES[:3]),
]


def _recipe(name, *variant):
  path = CONFIGS / f"{name}.py"
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return config_lib.resolve(module.get_config(*variant))


def _steps(recipe):
  images = IMAGES[recipe.data.tfds_name or recipe.data.source]
  return images // recipe.train.batch_size


@pytest.mark.parametrize(
  ("name", "variant"), [*PUBLISHED, *((name, "cpu") for name in NAMES)]
)
def test_the_average_reaches_back_a_small_part_of_the_run(name, variant):
  recipe = _recipe(name, variant)
  total = _steps(recipe) * recipe.train.epochs
  assert 1 / (1 - recipe.method.ema_decay) <= 0.06 * total


@pytest.mark.parametrize(
  ("name", "views", "forwards"),
  [
    ("fixmatch", 2, 0),
    ("uda", 2, 0),
    ("mean_teacher", 1, 1),
    ("pseudo_label", 1, 0),
  ],
)
def test_cpu_recipes_cost_as_much_as_the_quickstart(name, views, forwards):
  """An image forward is 1 and backward 2, as is said of the teacher."""
  quickstart, recipe = _recipe("quickstart"), _recipe(name, "cpu")
  large = quickstart.views.specs["large"].count * quickstart.train.batch_size
  supports = (
    quickstart.support.classes_per_step * quickstart.support.images_per_class
  )
  expected = (large + supports) * _steps(quickstart) * quickstart.train.epochs
  size = recipe.train.batch_size
  images = recipe.support.batch_size + views * size + forwards * size / 3
  total = images * _steps(recipe) * recipe.train.epochs
  assert total == pytest.approx(expected, rel=0.01)


def test_the_warm_up_of_imagenet_is_five_epochs_of_its_labels():
  recipe = _recipe("fixmatch", "imagenet")
  steps = recipe.optim.warmup_epochs * _steps(recipe)
  assert steps * recipe.support.batch_size == pytest.approx(
    5 * 0.1 * IMAGES["imagenet2012"], rel=0.01
  )


@pytest.mark.parametrize("variant", ["4000", "imagenet", "cpu"])
def test_teacher_and_student_decay_alike(variant):
  recipe = _recipe("mpl", variant)
  assert recipe.method.student_weight_decay == recipe.optim.weight_decay


@pytest.mark.parametrize(
  ("name", "momentum"), [("fixmatch", 0.999), ("mpl", 0.999), ("uda", 0.9)]
)
def test_running_statistics_on_cifar_10(name, momentum):
  model = _recipe(name, "4000").model
  assert (model.bn_momentum, model.final_bn_momentum) == (momentum,) * 2


@pytest.mark.parametrize("name", NAMES[:3])
def test_large_images_lose_no_square(name):
  strong = _recipe(name, "imagenet").views.specs["strong"]
  assert rand_augment.POLICIES[strong.rand_augment].cutout == 0
