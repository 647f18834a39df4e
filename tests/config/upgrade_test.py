"""Recipes that other versions have stored."""

import json
import pathlib

import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import upgrade
from paws_jax.config import views

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "run_0_1" / "run"
# Section `method` as version 0 stored it for every method, with its defaults.
METHOD_0 = {
  "name": "paws",
  "temperature": 0.1,
  "sharpen_temperature": 0.25,
  "me_max": True,
  "prior": "uniform",
  "prior_probs": [],
  "support_loss_weight": 0.0,
  "entropy_loss_weight": 0.0,
  "health_metrics": True,
  "detached_keys": False,
  "supervised_until": 0,
  "supervised_until_epochs": 0.0,
  "label_mass_ratio": 5.0,
  "in_domain_temperature": 3.0,
  "in_domain_power": 1.0,
  "num_iterations": 20,
  "as_released": False,
  "released_batch_size": 64,
}


def test_a_recipe_is_read_as_it_was_written():
  config = config_lib.base("ropaws")
  config.views.large.scale = (0.3, 0.9)
  config.method.num_iterations = 3
  recipe = config_lib.resolve(config)
  stored = json.loads(json.dumps(upgrade.write(recipe)))
  assert stored["version"] == upgrade.VERSION
  assert upgrade.read(stored) == recipe
  # Reference curves have it by dotted names.
  assert upgrade.read(upgrade.flatten(stored)) == recipe


# The methods of version 0.
@pytest.mark.parametrize(
  "name", ["paws", "ropaws", "simclr", "suncet", "supervised"]
)
def test_version_0_stored_the_fields_of_all_methods(name):
  weight = {"suncet": 1.0, "simclr": 0.0}.get(name, 0.5)
  stored = METHOD_0 | {
    "name": name,
    "temperature": 0.3,
    "support_loss_weight": weight,
    "num_iterations": 7,
    "detached_keys": True,
  }
  recipe = upgrade.read({"method": stored})
  config = config_lib.base(name)
  for field in ("temperature", "support_loss_weight", "num_iterations"):
    if field in config.method:
      config.method[field] = stored[field]
  if "detached_keys" in config.method:
    config.method.detached_keys = True
  assert recipe == config_lib.resolve(config)


def test_the_stored_run_of_version_0():
  stored = json.loads((GOLDEN / "config.json").read_text())
  assert "version" not in stored
  recipe = upgrade.read(stored)
  config_lib.resolve(recipe)
  flat, before = upgrade.flatten(recipe.to_dict()), upgrade.flatten(stored)
  for name, value in before.items():
    assert flat.get(name, value) == value, name
  # Nothing but what the method ignored is dropped.
  dropped = {name for name in before if name not in flat}
  flat_views = {*views.FLAT_NAMES, *views.SHARED_NAMES}
  views_names = {f"views.{name}" for name in flat_views}
  assert views_names <= dropped
  assert dropped - views_names <= {f"method.{name}" for name in METHOD_0}
  # Fields of all crops have become those of each spec.
  for name, count, size, scale in (
    ("large", "num_large", "large_size", "large_scale"),
    ("small", "num_small", "small_size", "small_scale"),
  ):
    old = {"count": count, "size": size, "scale": scale}
    old |= {shared: shared for shared in views.SHARED_NAMES}
    for new, former in old.items():
      value = flat[f"views.{name}.{new}"]
      assert value == before[f"views.{former}"], (name, new)


def test_version_0_has_the_default_crops_where_it_says_nothing():
  recipe = upgrade.read({"views": {"num_small": 0, "flip_probability": 0.0}})
  config = config_lib.base()
  config.views.small.count = 0
  for view in (config.views.large, config.views.small):
    view.flip_probability = 0.0
  assert recipe == config_lib.resolve(config)
  assert upgrade.read({"seed": 1}).views == config_lib.Views()


@pytest.mark.parametrize("version", [0, 1])
def test_a_field_that_there_never_was_is_refused_by_name(version):
  stored = {"version": version, "model": {"name": "resnet50", "wand": 1}}
  with pytest.raises(
    errors.UnknownFieldError, match=r"^model\.wand is no field of section model"
  ):
    upgrade.read(stored)


def test_a_field_of_another_method_is_refused_since_version_1():
  with pytest.raises(
    errors.UnknownFieldError, match=r"^method\.me_max is no field of method si"
  ):
    upgrade.read({"version": 1, "method": {"name": "simclr", "me_max": True}})


@pytest.mark.parametrize("version", [2, 17])
def test_a_newer_recipe_is_refused_with_both_versions(version):
  with pytest.raises(
    errors.InputError,
    match=rf"version {version}, and this program knows versions 0 to 1",
  ):
    upgrade.read({"version": version, "seed": 0})


@pytest.mark.parametrize(
  "changes",
  [
    {"seed": {"a": 1}},
    {"train": {"epochs": {"a": {"b": 1}}}},
    {"data.dir": {"name": []}},
    {"model": 5, "model.name": "resnet50"},
    {"method": {"name": []}},
    {"views": 3},
    {"views": {"large": {"size": {"a": 1}}}},
    {"seed": "0"},
    {"train": {"epochs": None}},
    {"train": {"epochs": 2.5}},
    {"train": {"epochs": True}},
    {"views": {"mean": 0.5}},
    {"views": {"mean": ["a"]}},
    {"model": {"name": 5}},
    {"method": {"temperature": [0.1]}},
  ],
)
@pytest.mark.parametrize("version", [0, 1])
def test_values_of_another_kind_are_a_users_error(changes, version):
  with pytest.raises(errors.UserError):
    upgrade.read({"version": version} | changes)
