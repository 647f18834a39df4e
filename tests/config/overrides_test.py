import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import overrides


def changed(**fields):
  config = config_lib.base()
  overrides.apply(config, overrides.flatten(fields))
  return config_lib.resolve(config)


@pytest.mark.parametrize(
  "fields",
  [
    {"train.batch_size": 8, "views.large.size": 192},
    {"train__batch_size": 8, "views__large__size": 192},
    {"train": {"batch_size": 8}, "views": {"large": {"size": 192}}},
    {"train": {"batch_size": 8}, "views__large": {"size": np.int64(192)}},
  ],
)
def test_a_field_has_a_name_with_dots_underscores_or_sections(fields):
  values = overrides.flatten(fields)
  assert values == {"train.batch_size": 8, "views.large.size": 192}
  recipe = changed(**fields)
  assert recipe.train.batch_size == 8
  assert config_lib.build_views(recipe.views).specs["large"].size == 192


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("train.epoch", "train.epoch is no field of a recipe: .*train.epochs"),
    ("trian__epochs", "did you mean train.epochs or finetune.epochs"),
    ("batch_size", "did you mean .*train.batch_size"),
    ("views.large.sizes", "did you mean .*views.large.size"),
    ("nonsense", "did you mean a field of checkpoint, data"),
    ("method.tau", "method.tau is no field of a recipe"),
    ("method", "method is a section .* give its fields, such as method.name"),
    ("views__large", "views.large is a section of a recipe: give its fields"),
  ],
)
def test_an_unknown_field_is_refused_with_the_nearest(name, words):
  with pytest.raises(errors.UnknownFieldError, match=words):
    overrides.flatten({name: 3})


def test_a_field_given_twice_is_refused():
  with pytest.raises(errors.InputError, match=r"train\.epochs is given twice"):
    overrides.flatten({"train.epochs": 2, "train": {"epochs": 3}})


def test_a_method_has_its_own_fields():
  recipe = changed(**{"method.name": "simclr", "method.temperature": 0.5})
  assert (recipe.method.name, recipe.method.temperature) == ("simclr", 0.5)
  with pytest.raises(errors.UnknownFieldError, match="method simclr"):
    changed(**{"method.name": "simclr", "method.support_loss_weight": 1.0})


@pytest.mark.parametrize(
  ("given", "epochs", "minutes"), [("minutes", 0, 2), ("epochs", 2, 0)]
)
def test_one_length_takes_the_place_of_the_other(given, epochs, minutes):
  config = config_lib.base()
  config.optim.warmup_epochs = 1.0
  config.train.epochs, config.train.minutes = 0, 5.0
  if given == "minutes":
    config.train.epochs, config.train.minutes = 9, 0.0
  overrides.apply(config, {f"train.{given}": 2})
  train = config_lib.resolve(config).train
  assert (train.epochs, train.minutes) == (epochs, minutes)


def test_a_new_view_takes_the_defaults():
  recipe = changed(**{"views.strong.size": 24, "views.strong.count": 1})
  assert recipe.views.specs["strong"].size == 24


def test_values_are_checked_as_those_of_a_command():
  with pytest.raises(errors.InputError, match=r"train\.epochs is 'x': it must"):
    changed(train__epochs="x")
  assert changed(optim__peak_lr=1).optim.peak_lr == 1.0
