"""Section `method`: its fields follow the name of the method."""

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import methods as methods_lib
from paws_jax.config import fields
from paws_jax.config import methods

# Of the methods, the fields beside `name` and `temperature`.
PAWS = {
  "sharpen_temperature",
  "me_max",
  "prior",
  "prior_probs",
  "support_loss_weight",
  "entropy_loss_weight",
  "health_metrics",
}
FIELDS = {
  "paws": PAWS,
  "ropaws": PAWS
  | {
    "label_mass_ratio",
    "in_domain_temperature",
    "in_domain_power",
    "num_iterations",
    "as_released",
    "released_batch_size",
  },
  "simclr": {"detached_keys", "health_metrics"},
  "suncet": {
    "detached_keys",
    "health_metrics",
    "support_loss_weight",
    "supervised_until",
    "supervised_until_epochs",
  },
  "supervised": set(),
}


@pytest.mark.parametrize("name", FIELDS)
def test_these_methods_have_fields_of_their_own(name):
  kind = methods.config_class(name)
  assert set(fields.types(kind)) == {"name", "temperature"} | FIELDS[name]


@pytest.mark.parametrize("name", methods.METHODS)
def test_each_method_is_where_the_table_says(name):
  assert methods.config_class(name)().name == name
  expected = name.replace("_", "")
  assert methods_lib.METHODS[name].__name__.lower() == expected


def test_an_unknown_method_is_refused_with_the_list():
  config = config_lib.base()
  config.method.name = "nonesuch"
  known = ", ".join(methods.METHODS)
  with pytest.raises(
    errors.InputError, match=rf"^method\.name is 'nonesuch'; known are {known}"
  ):
    config_lib.resolve(config)


def test_a_field_of_another_method_is_refused_by_name():
  with pytest.raises(
    errors.UnknownFieldError,
    match=r"^method\.prior is no field of method simclr; its fields are name, "
    r"temperature, detached_keys, health_metrics\.$",
  ):
    methods.build({"name": "simclr", "prior": "labels"})


def test_the_section_follows_a_name_that_a_recipe_sets(capsys):
  config = config_lib.base()
  config.method.temperature = 0.2
  config.method.name = "simclr"
  config.method.detached_keys = True
  recipe = config_lib.resolve(config)
  expected = methods.config_class("simclr")(temperature=0.2, detached_keys=True)
  assert recipe.method == expected
  # What was there by default is not worth a line.
  assert capsys.readouterr() == ("", "")


def test_values_that_the_method_lacks_are_left_out_in_one_line(capsys):
  config = config_lib.base()
  config.method.me_max = False
  config.method.support_loss_weight = 1.0
  config.method.name = "simclr"
  assert config_lib.resolve(config).method == methods.config_class("simclr")()
  assert capsys.readouterr().err == (
    "notice: method simclr does not read method.me_max = False, "
    "method.support_loss_weight = 1.0, which is left out\n"
  )


def test_a_section_of_its_own_method_is_taken_as_it_is(capsys):
  config = config_lib.base("suncet")
  config.method.detached_keys = True
  # It is the default of another method, and not of this one.
  config.method.support_loss_weight = 0.5
  recipe = config_lib.resolve(config)
  assert recipe.method.detached_keys
  assert recipe.method.support_loss_weight == 0.5
  assert capsys.readouterr() == ("", "")


def test_a_field_of_no_method_is_refused_by_name():
  config = config_lib.base()
  config.method.name = "simclr"
  config.method.detachd_keys = True
  with pytest.raises(
    errors.UnknownFieldError, match=r"^method\.detachd_keys is no field of"
  ):
    config_lib.resolve(config)


def test_values_are_kept_where_the_other_method_has_the_field():
  config = config_lib.base()
  config.method.support_loss_weight = 1.0
  section = config_lib.method_section("ropaws", config.method)
  assert section.support_loss_weight == 1.0
  assert section.num_iterations == 20
  # The default of PAWS is 0, and makes no sense here.
  section = config_lib.method_section("suncet", config_lib.base().method)
  assert section.support_loss_weight == 1.0
  section = config_lib.method_section("ropaws", {"temperature": 0.3})
  assert section.temperature == 0.3


def test_epochs_become_steps():
  kind = methods.config_class("suncet")
  section = kind(supervised_until_epochs=2.5)
  assert section.in_steps(10) == kind(supervised_until=25)
  # At least one: no steps would mean all of them.
  assert section.in_steps(0).supervised_until == 1
  same = methods.config_class("paws")()
  assert same.in_steps(10) is same


def test_only_ropaws_has_a_temperature_of_known_classes():
  assert methods.config_class("ropaws")().in_domain_temperature == 3.0
  for name in ("paws", "simclr", "suncet", "supervised"):
    assert methods.config_class(name)().in_domain_temperature is None
