"""Section `views`: named specs, flat names of earlier versions, typed form."""

import dataclasses
import json

import pytest

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax.config import upgrade
from paws_jax.config import views
from paws_jax.runs import recipe as recipe_lib


def _flat_section():
  """Section `views` of version 0.1.0, as its config.json had it."""
  return {
    "num_large": 2,
    "large_size": 28,
    "large_scale": [0.5, 1.0],
    "num_small": 0,
    "small_size": 16,
    "small_scale": [0.2, 0.5],
    "aspect_ratio": [1.0, 1.0],
    "flip_probability": 0.25,
    "rotation_degrees": 3.0,
    "jitter_strength": 0.5,
    "jitter_probability": 0.7,
    "grey_probability": 0.0,
    "blur_probability": 0.1,
    "blur_radius": [0.1, 1.0],
    "solarize_probability": 0.2,
    "equalize_probability": 0.3,
    "mean": [0.5],
    "std": [0.25],
    "eval_resize": 0,
  }


def _expected_views():
  shared = {
    "aspect_ratio": (1.0, 1.0),
    "flip_probability": 0.25,
    "rotation_degrees": 3.0,
    "jitter_strength": 0.5,
    "jitter_probability": 0.7,
    "grey_probability": 0.0,
    "blur_probability": 0.1,
    "blur_radius": (0.1, 1.0),
    "solarize_probability": 0.2,
    "equalize_probability": 0.3,
  }
  large = config_lib.ViewSpec(count=2, size=28, scale=(0.5, 1.0), **shared)
  small = config_lib.ViewSpec(count=0, size=16, scale=(0.2, 0.5), **shared)
  return config_lib.Views(
    mean=(0.5,),
    std=(0.25,),
    eval_resize=0,
    specs={"large": large, "small": small},
  )


# Specs by name.


def test_the_defaults_are_the_crops_of_the_paper():
  section = config_lib.build_views(config_lib.base().views)
  assert section == config_lib.Views()
  crops = {
    name: (spec.count, spec.size, spec.scale)
    for name, spec in section.crops.items()
  }
  assert crops == {
    "large": (2, 224, (0.14, 1.0)),
    "small": (6, 96, (0.05, 0.14)),
  }
  large, small = (section.specs[name] for name in ("large", "small"))
  sizes = {"count": 2, "size": 224, "scale": (0.14, 1.0)}
  assert dataclasses.replace(small, **sizes) == large


def test_a_recipe_adds_specs_of_any_name():
  config = config_lib.base()
  config.views.strong = config_lib.view_spec(size=32, blur_probability=1.0)
  config_lib.validate(config)
  section = config_lib.build_views(config.views)
  assert list(section.crops) == ["large", "small", "strong"]
  strong = config_lib.ViewSpec(count=1, size=32, blur_probability=1.0)
  assert section.specs["strong"] == strong


def test_a_spec_of_count_zero_is_left_out():
  config = config_lib.base()
  config.views.small.count = 0
  # Its size then says nothing.
  config.views.small.size = 1000
  config_lib.validate(config)
  assert list(config_lib.build_views(config.views).crops) == ["large"]


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"size": 0}, "views.strong.size is 0: it must be at least 1"),
    ({"scale": (0.5, 0.2)}, r"views.strong.scale is \(0.5, 0.2\): it must"),
    ({"count": -1}, "views.strong.count is -1: it must be at least 0"),
    ({"flip_probability": float("nan")}, "views.strong.flip.* must be finite"),
  ],
)
def test_fields_of_any_spec_have_ranges(change, message):
  config = config_lib.base()
  config.views.strong = config_lib.view_spec()
  config.views.strong.update(change)
  with pytest.raises(ValueError, match=message):
    config_lib.validate(config)


def test_unknown_fields_are_named():
  config = config_lib.base()
  config.views.large.sise = 3
  with pytest.raises(TypeError, match=r"views\.large\.sise is no field"):
    config_lib.validate(config)
  config = config_lib.base()
  config.views.means = (0.5,)
  with pytest.raises(TypeError, match=r"views\.means is no field .* mean, std"):
    config_lib.validate(config)


def test_a_section_without_specs_is_refused():
  with pytest.raises(ValueError, match="views has no crops"):
    config_lib.Views(specs={}).check()


def test_supports_are_cut_by_their_own_spec_or_that_of_large_crops():
  section = config_lib.base().views
  assert config_lib.build_views(section).support.size == 224
  section.support = config_lib.view_spec(size=33)
  built = config_lib.build_views(section)
  assert built.support.size == 33
  assert "support" not in built.crops
  del section.support
  del section.large
  section.query = config_lib.view_spec(size=44)
  assert config_lib.build_views(section).support.size == 44


def test_the_evaluation_crop_has_a_size_of_its_own_or_that_of_large_crops():
  section = config_lib.base().views
  section.support = config_lib.view_spec(size=33)
  view = config_lib.build_views(section).evaluation
  assert (view.eval_resize, view.eval_size) == (256, 224)
  section.eval_size = 192
  view = config_lib.build_views(section).evaluation
  assert view == config_lib.EvalView(256, 192, section.mean, section.std)


def test_sections_are_hashable_and_alike_whatever_the_order():
  first = config_lib.base().views
  first.a, first.z = (config_lib.view_spec(size=size) for size in (1, 2))
  second = config_lib.base().views
  second.z, second.a = (config_lib.view_spec(size=size) for size in (2, 1))
  from_json = json.loads(first.to_json())
  built = [config_lib.build_views(one) for one in (first, second, from_json)]
  assert built[0] == built[1] == built[2]
  assert len({hash(one) for one in built}) == 1
  assert list(built[1].specs) == ["a", "large", "small", "z"]


# Flat names.


def test_every_field_of_before_has_a_place():
  section = _flat_section()
  shared = {"mean", "std", "eval_resize"}
  names = {*views.FLAT_NAMES, *views.SHARED_NAMES}
  assert names | shared == set(section)


def test_a_recipe_may_set_and_read_flat_names():
  config = config_lib.base()
  for name, value in _flat_section().items():
    value = tuple(value) if isinstance(value, list) else value
    setattr(config.views, name, value)
    assert getattr(config.views, name) == value
    assert config.views[name] == value
  assert config_lib.build_views(config.views) == _expected_views()
  # They leave nothing behind.
  assert set(config.views) == set(config_lib.base().views)


def test_a_recipe_with_flat_names_gets_one_line_of_notice(capsys):
  config = config_lib.base()
  config.views.num_small = 0
  config.views.aspect_ratio = (1.0, 1.0)
  config_lib.resolve(config)
  config_lib.resolve(config)
  assert capsys.readouterr().err == (
    "section views has named specs: num_small is now small.count; set in every "
    "spec: aspect_ratio\n"
  )


def test_flat_names_stand_also_in_updates_and_copies():
  config = config_lib.base().copy_and_resolve_references().lock()
  config.views.update(large_size=20, blur_probability=0.0)
  config.update_from_flattened_dict({"views.num_small": 1})
  assert config.views.large.size == 20
  assert config.views.small.count == 1
  assert config.views.small.blur_probability == 0.0


def test_the_last_of_both_names_counts():
  config = config_lib.base()
  config.views.large_size = 20
  config.views.large.size = 30
  assert config.views.large_size == 30
  config.views.large_size = 40
  assert config.views.large.size == 40


def test_a_shared_name_sets_all_specs_of_a_recipe():
  config = config_lib.base()
  config.views.strong = config_lib.view_spec()
  config.views.flip_probability = 0.0
  specs = config_lib.build_views(config.views).specs.values()
  assert [spec.flip_probability for spec in specs] == [0.0] * 3


def test_a_recipe_with_the_new_names_has_no_notice():
  config = config_lib.base()
  config.views.large.size = 20
  assert not views.notice(config)


def test_flat_names_keep_the_type_of_their_field():
  with pytest.raises(TypeError, match="size"):
    config_lib.base().views.large_size = "large"


def test_a_section_is_built_of_flat_fields():
  assert augment.ViewsConfig(**_flat_section()) == _expected_views()
  new = config_lib.base().views
  assert augment.ViewsConfig(**new) == config_lib.Views()
  with pytest.raises(TypeError, match="flip_probabilty"):
    augment.ViewsConfig(flip_probabilty=0.5)


# Stored recipes.


def _store(directory, recipe):
  (directory / recipe_lib.RECIPE).write_text(json.dumps(recipe))


def test_a_stored_recipe_of_before_is_read(tmp_path):
  stored = json.loads(config_lib.base().to_json())
  stored["views"] = _flat_section()
  _store(tmp_path, stored)
  recipe = recipe_lib.load(tmp_path)
  assert recipe.views == _expected_views()
  config = config_lib.editable(recipe)
  # Flags may still have flat names.
  config.views.num_small = 6
  found = recipe_lib.differences(
    recipe_lib.stored_recipe(tmp_path), config_lib.resolve(config)
  )
  assert found == {"views.small.count": (0, 6)}


def test_a_stored_recipe_keeps_the_names_of_its_specs(tmp_path):
  config = config_lib.base()
  del config.views.small
  config.views.strong = config_lib.view_spec(size=32, scale=(0.5, 1.0))
  stored = upgrade.write(config_lib.resolve(config))
  # A field that is newer than the run.
  del stored["views"]["strong"]["equalize_probability"]
  _store(tmp_path, stored)
  loaded = config_lib.editable(recipe_lib.load(tmp_path))
  assert loaded.to_dict() == config.to_dict()
  loaded.views.strong.size = 33
  found = recipe_lib.differences(
    config_lib.resolve(config), config_lib.resolve(loaded)
  )
  assert found == {"views.strong.size": (32, 33)}
