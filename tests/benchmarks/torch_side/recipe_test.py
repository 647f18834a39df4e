"""Recipes that the PyTorch side of benchmarks/step/step.py refuses."""

import pytest

from benchmarks.torch_side import recipe as peer_recipe
from paws_jax import config as config_lib
from paws_jax import methods

# What the peer does whatever their value.
DONE = {
  "temperature": 0.2,
  "sharpen_temperature": 1.0,
  "me_max": False,
  "support_loss_weight": 1.0,
  "health_metrics": False,
}
# What it lacks, as a recipe would ask for it.
LACKING = {
  "prior": "labels",
  "prior_probs": (0.5, 0.5),
  "entropy_loss_weight": 0.5,
}


def test_every_switch_of_a_method_is_done_or_refused():
  # Those of other methods are refused with the method.
  for name in ("paws", "supervised"):
    assert set(config_lib.base(name).method) <= {"name", *DONE, *LACKING}
  assert {"name", *DONE, *LACKING} == set(config_lib.base("paws").method)


def test_what_it_does_it_is_told():
  config = config_lib.base()
  config.method.update(DONE)
  config.support.label_smoothing = 0.3
  told = peer_recipe.sections(config)
  assert told == {
    name: dict(config[name]) for name in ("model", "method", "optim")
  }
  assert told["method"]["sharpen_temperature"] == 1


@pytest.mark.parametrize(("name", "value"), LACKING.items())
def test_what_it_lacks_is_refused_by_name(name, value):
  config = config_lib.base()
  default = config.method[name]
  config.method[name] = value
  with pytest.raises(ValueError, match="--peer=none") as error:
    peer_recipe.sections(config)
  assert (
    f": method.{name} is {value!r} (it has {default!r} only). Change"
  ) in str(error.value)


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_method_is_done_or_refused_by_name(name):
  config = config_lib.base(name)
  if name in ("paws", "supervised"):
    assert peer_recipe.sections(config)["method"]["name"] == name
    return
  with pytest.raises(
    ValueError,
    match=f"method.name is '{name}' .it has 'paws' and 'supervised' only.",
  ):
    peer_recipe.sections(config)


def test_all_that_it_lacks_is_told_at_once():
  config = config_lib.base("simclr")
  config.model.freeze_bn = True
  with pytest.raises(
    ValueError, match=r"method\.name is 'simclr' .*; model\.freeze_bn is True"
  ):
    peer_recipe.sections(config)
