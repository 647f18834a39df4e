import numpy as np
import pytest
import sklearn.base
from sklearn import model_selection

import paws_jax
from paws_jax import errors
from paws_jax.estimator import parameters


def test_parameters_are_those_that_were_given():
  model = paws_jax.PawsClassifier(
    "quickstart", random_state=3, train={"epochs": 5}, **{"optim.peak_lr": 0.1}
  )
  assert model.get_params() == {
    "recipe": "quickstart",
    "random_state": 3,
    "workdir": None,
    "verbose": True,
    "train__epochs": 5,
    "optim__peak_lr": 0.1,
  }
  assert " ".join(repr(model).split()) == (
    "PawsClassifier(optim__peak_lr=0.1, random_state=3, recipe='quickstart', "
    "train__epochs=5)"
  )


def test_a_clone_has_the_same_parameters():
  model = paws_jax.PawsClassifier(
    views__large__scale=(0.5, 1.0), train__epochs=np.int64(3)
  )
  copy = sklearn.base.clone(model)
  assert copy is not model
  assert copy.get_params() == model.get_params()


@pytest.mark.parametrize(
  "params",
  [
    {"train__epochs": 3, "recipe": "quickstart"},
    {"train.epochs": 3, "recipe": "quickstart"},
    {"train": {"epochs": 3}, "recipe": "quickstart"},
  ],
)
def test_parameters_are_set(params):
  model = paws_jax.PawsClassifier(train__epochs=9)
  assert model.set_params(**params) is model
  assert model.get_params()["train__epochs"] == 3
  assert model.recipe == "quickstart"
  assert model.set_params() is model


def test_none_is_the_value_of_the_recipe():
  model = paws_jax.PawsClassifier(train__epochs=9, train__batch_size=8)
  model.set_params(train__epochs=None)
  assert model._fields() == {"train.batch_size": 8}


def test_grids_name_fields():
  grid = model_selection.ParameterGrid(
    {"train__epochs": [1, 2], "model.name": ["small_resnet"]}
  )
  models = [paws_jax.PawsClassifier().set_params(**point) for point in grid]
  assert [model.train__epochs for model in models] == [1, 2]
  assert {model.model__name for model in models} == {"small_resnet"}


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("train__epoch", r"did you mean train\.epochs"),
    ("train.epoch", r"did you mean train\.epochs"),
    ("epochs", r"did you mean .*train\.epochs"),
    ("seed", "the parameter random_state"),
  ],
)
def test_an_unknown_field_is_refused(name, words):
  with pytest.raises(errors.UnknownFieldError, match=words):
    paws_jax.PawsClassifier(**{name: 3})
  model = paws_jax.PawsClassifier()
  with pytest.raises(ValueError, match=words):
    model.set_params(recipe="quickstart", **{name: 3})
  assert model.recipe == "image_folder:laptop"


@pytest.mark.parametrize(
  ("given", "seed"), [(None, None), (4, 4), (np.int64(4), 4)]
)
def test_a_seed_is_an_integer(given, seed):
  assert paws_jax.PawsClassifier(random_state=given)._seed() == seed


def test_a_random_state_gives_other_seeds():
  model = paws_jax.PawsClassifier(random_state=np.random.RandomState(0))
  assert model._seed() != model._seed()


def test_stored_parameters_make_the_same_estimator():
  model = paws_jax.PawsClassifier(
    random_state=np.int64(4), views__large__scale=(0.5, 1.0), train__epochs=2
  )
  stored = model._stored()
  copy = paws_jax.PawsClassifier(**parameters.restored(stored))
  assert copy.get_params() == model.get_params()
