"""Runs that a protocol of fine-tuning could not train are refused."""

import importlib.util
import pathlib
import types

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.finetune import protocols
from tests import class_head_runs
from tests import tiny_recipe

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
RECIPES = [
  *((path.stem,) for path in sorted(CONFIGS.glob("*.py"))),
  *(("cifar10", variant) for variant in ("40", "4000")),
  *(
    (name, variant)
    for name in ("fixmatch", "uda", "mpl", "supervised")
    for variant in ("40", "250", "4000", "imagenet", "cpu")
  ),
  *(
    (name, variant)
    for name in ("mean_teacher", "pseudo_label")
    for variant in ("40", "250", "4000", "cpu")
  ),
]


def _check(recipe):
  """Has "suncet" check a recipe as the task does."""
  trained = types.SimpleNamespace(recipe=recipe)
  protocols.Suncet(trained).check(10)


@pytest.mark.parametrize("recipe", RECIPES, ids=":".join)
def test_the_protocol_of_every_recipe_trains(recipe):
  path = CONFIGS / f"{recipe[0]}.py"
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  built = config_lib.resolve(module.get_config(*recipe[1:]))
  if built.finetune.protocol == "suncet":
    _check(built)


def test_a_single_support_of_each_class_is_refused():
  config = tiny_recipe.get_config()
  config.method = config_lib.method_section("simclr")
  config.views.small.count = 0
  config.support.images_per_class = 1
  with pytest.raises(
    errors.InputError,
    match=r"^support.images_per_class is 1 and support.num_views 1, but "
    r"finetune.protocol is 'suncet': .* set finetune.protocol to 'linear_head'",
  ):
    _check(config_lib.resolve(config))
  config.support.num_views = 2
  _check(config_lib.resolve(config))


@pytest.mark.parametrize("name", ["fixmatch", "mpl", "strong_supervised"])
def test_a_class_head_is_not_left_as_it_is(name):
  config = tiny_recipe.get_config()
  class_head_runs.change(config, name)
  with pytest.raises(
    errors.InputError,
    match=r"^finetune.protocol is 'suncet' but method.name is .* 'linear_head'",
  ):
    _check(config_lib.resolve(config))
