"""What recipes written for version 0.1 do with a recipe still works."""

import json

import ml_collections
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import upgrade


def test_fields_of_the_named_method_can_be_read_before_the_section_is_rebuilt():
  config = config_lib.base()
  config.method.name = "ropaws"
  config.optim.peak_lr = 0.1 * config.method.label_mass_ratio
  assert config_lib.resolve(config).optim.peak_lr == pytest.approx(0.5)
  with pytest.raises(AttributeError, match="nonsense"):
    _ = config.method.nonsense


def test_a_value_that_was_set_is_kept_when_the_method_changes():
  """Even where it is the default of the method before."""
  for order in ("name first", "name last"):
    config = config_lib.base("suncet")
    if order == "name first":
      config.method.name = "paws"
    config.method.support_loss_weight = 1.0
    config.method.name = "paws"
    assert config_lib.resolve(config).method.support_loss_weight == 1.0
  config = config_lib.base("suncet")
  config.method.name = "paws"
  assert config_lib.resolve(config).method.support_loss_weight == 0.0


def test_flat_names_of_views_can_be_referred_to():
  config = config_lib.base()
  config.eval.batch_size = config.views.get_ref("large_size")
  config.views.large_size = 32
  assert config.eval.batch_size == 32


def _stored(**changes):
  return json.loads(json.dumps(upgrade.write(config_lib.Recipe()))) | changes


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"views": 3}, "section views is 3: it must be an object"),
    ({"method": None}, "section method is None: it must be an object"),
    ({"version": -1}, "its version is -1: it must be a whole number"),
    ({"version": None}, "its version is None: it must be a whole number"),
    ({"version": "1"}, "its version is '1': it must be a whole number"),
    ({"version": True}, "its version is True: it must be a whole number"),
    ({"version": 99}, "of version 99, and this program knows versions 0 to"),
  ],
)
def test_a_stored_recipe_edited_by_hand_is_refused_in_one_line(
  changes, message
):
  with pytest.raises(errors.InputError, match=message):
    upgrade.read(_stored(**changes))


def test_a_recipe_may_rebuild_itself_from_a_plain_dictionary():
  config = ml_collections.ConfigDict(config_lib.base().to_dict())
  config.seed = 3
  assert config_lib.resolve(config).seed == 3
