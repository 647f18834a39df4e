"""The stored recipe of a run: what another one may change, what is refused."""

import json

import pytest

from paws_jax import config as config_lib
from paws_jax import errors as errors_lib
from paws_jax.config import upgrade
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir
from tests import used_workdir


def test_another_recipe_is_refused_with_what_differs(tmp_path):
  path = used_workdir.make(tmp_path)
  before = (path / recipe_lib.RECIPE).read_text()
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.prepare(
      path,
      used_workdir.recipe(
        seed=1, optim__peak_lr=0.5, views__large__scale=(0.2, 1.0)
      ),
    )
  message = str(caught.value)
  assert "seed: 0 there, 1 now" in message
  assert "optim.peak_lr: 6.4 there, 0.5 now" in message
  assert "views.large.scale: [0.14, 1.0] there, [0.2, 1.0] now" in message
  assert message.count(" there, ") == 3
  assert "another --workdir" in message
  assert (path / recipe_lib.RECIPE).read_text() == before


@pytest.mark.parametrize(
  "change",
  [
    {"log__every_steps": 10},
    {"log__next_command": "make tea"},
    {"eval__every_steps": 10},
    {"checkpoint__every_steps": 10},
    {"train__epochs": 101},
  ],
)
def test_what_may_change_on_the_way(tmp_path, change):
  path = used_workdir.make(tmp_path)
  workdir.prepare(path, used_workdir.recipe(**change))
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  assert stored == upgrade.write(
    config_lib.resolve(used_workdir.recipe(**change))
  )


def test_epochs_may_not_shrink(tmp_path):
  used_workdir.make(tmp_path)
  with pytest.raises(
    errors_lib.WorkdirError, match=r"train\.epochs: 100 there, 99 now"
  ):
    workdir.prepare(tmp_path, used_workdir.recipe(train__epochs=99))


def test_epochs_shrink_to_those_of_the_newest_checkpoint(tmp_path):
  """An extended run that has taken no further step can be left as it was."""
  path = used_workdir.make(tmp_path, train__epochs=50)
  meta = path / workdir.CHECKPOINTS / "55" / "meta"
  meta.mkdir()
  stored = upgrade.write(used_workdir.recipe(train__epochs=50))
  text = json.dumps({"meta": {"recipe": stored}})
  (meta / "metadata").write_text(json.dumps({"text": text}))
  workdir.prepare(path, used_workdir.recipe(train__epochs=100))
  workdir.prepare(path, used_workdir.recipe(train__epochs=50))
  assert recipe_lib.load(path).train.epochs == 50
  with pytest.raises(errors_lib.WorkdirError, match="50 there, 49 now"):
    workdir.prepare(path, used_workdir.recipe(train__epochs=49))


def _minutes(minutes):
  return used_workdir.recipe(train__epochs=0, train__minutes=minutes)


def test_minutes_are_the_epochs_that_a_run_has_found(tmp_path):
  recipe = _minutes(2.5)
  # A directory without a run, then one whose run has no checkpoint.
  assert recipe_lib.with_length(recipe, tmp_path) is recipe
  workdir.prepare(
    tmp_path, used_workdir.recipe(train__epochs=17), found={"minutes": 2.5}
  )
  assert recipe_lib.with_length(recipe, tmp_path) is recipe
  (tmp_path / workdir.CHECKPOINTS / "70").mkdir(parents=True)
  found = recipe_lib.with_length(recipe, tmp_path)
  assert found == used_workdir.recipe(train__epochs=17)
  assert recipe_lib.check_recipe(tmp_path, recipe) == tmp_path
  # Longer by epochs: the same command continues with those.
  workdir.prepare(tmp_path, used_workdir.recipe(train__epochs=19))
  assert recipe_lib.with_length(recipe, tmp_path).train.epochs == 19
  assert recipe_lib.laid_out(tmp_path) == {"minutes": 2.5}


@pytest.mark.parametrize("found", [{}, {"minutes": 1.0}])
def test_minutes_do_not_extend_a_run(tmp_path, found):
  path = used_workdir.make(tmp_path)
  workdir.prepare(path, used_workdir.recipe(), found=found)
  with pytest.raises(errors_lib.WorkdirError, match=r"100 epochs.*epochs=100"):
    recipe_lib.with_length(_minutes(2.5), path)


def test_fields_that_are_newer_than_the_run_had_their_defaults(tmp_path):
  path = used_workdir.make(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  del stored["optim"]["momentum"]
  del stored["train"]["epochs"]
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.prepare(
      path, used_workdir.recipe(optim__momentum=0.5, train__epochs=99)
    )
  assert "optim.momentum: 0.9 there, 0.5 now" in str(caught.value)
  assert "train.epochs: 100 there, 99 now" in str(caught.value)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"data": {"old": 3}},
      r"used: data\.old is no field of section data;",
    ),
    ({"version": 99}, "version 99, and this program knows versions 0 to"),
  ],
)
def test_fields_of_another_version_are_refused(tmp_path, change, message):
  path = used_workdir.make(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored | change))
  with pytest.raises(errors_lib.WorkdirError, match=message):
    workdir.prepare(path, used_workdir.recipe())


def test_a_run_of_another_method_is_told_without_its_other_fields(tmp_path):
  path = used_workdir.make(tmp_path)
  other = used_workdir.recipe(method=config_lib.method_section("supervised"))
  with pytest.raises(errors_lib.WorkdirError) as caught:
    workdir.prepare(path, other)
  assert "method.name: paws there, supervised now" in str(caught.value)
  assert str(caught.value).count(" there, ") == 1


def test_a_run_of_version_0_continues(tmp_path):
  path = used_workdir.make(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  del stored["version"]
  # Version 0 stored the fields of all methods.
  stored["method"] |= {"detached_keys": False, "num_iterations": 20}
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  workdir.prepare(path, used_workdir.recipe())
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  assert stored == upgrade.write(config_lib.resolve(used_workdir.recipe()))


@pytest.mark.parametrize("text", ["{", "", "[1]", "\xff"])
def test_a_recipe_that_is_no_json_is_refused(tmp_path, text):
  (tmp_path / recipe_lib.RECIPE).write_text(text, encoding="latin-1")
  with pytest.raises(errors_lib.WorkdirError, match=r"config\.json is not"):
    workdir.prepare(tmp_path, used_workdir.recipe())


def test_the_recipe_of_a_run_is_read_as_it_was(tmp_path):
  config = config_lib.base()
  config.views.large.scale = (0.3, 0.9)
  config.train.epochs = 70
  workdir.prepare(tmp_path, config_lib.resolve(config))
  stored = recipe_lib.load(tmp_path)
  assert config_lib.resolve(stored) == config_lib.resolve(config)
  assert isinstance(stored.views.specs["large"].scale, tuple)


def test_a_recipe_with_unknown_fields_is_refused(tmp_path):
  config = config_lib.base()
  recipe = config.to_dict() | {"magic": {"wand": 1}}
  (tmp_path / recipe_lib.RECIPE).write_text(json.dumps(recipe))
  with pytest.raises(errors_lib.WorkdirError, match=r"magic.*--config"):
    recipe_lib.load(tmp_path)


@pytest.mark.parametrize(
  "text",
  ["[" * 10**5, "[]", '{"seed": NaN}', '{"train": {"epochs": {"a": 1}}}', ""],
)
def test_a_damaged_recipe_is_refused(tmp_path, text):
  (tmp_path / recipe_lib.RECIPE).write_text(text)
  with pytest.raises(errors_lib.WorkdirError, match=r"config\.json "):
    recipe_lib.load(tmp_path)


def test_a_run_from_before_a_field_was_there_goes_on(tmp_path):
  used_workdir.make(tmp_path)
  stored = json.loads((tmp_path / recipe_lib.RECIPE).read_text())
  del stored["method"]["support_loss_weight"]
  (tmp_path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  workdir.prepare(tmp_path, used_workdir.recipe())
  (tmp_path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  with pytest.raises(errors_lib.WorkdirError, match=r"weight: 0\.0 there"):
    workdir.prepare(
      tmp_path, used_workdir.recipe(method__support_loss_weight=1.0)
    )


@pytest.mark.parametrize("minutes", ["5", None, [5], True, {}])
def test_a_damaged_note_of_minutes_is_none(tmp_path, minutes):
  path = used_workdir.make(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  stored["laid_out"] = {"minutes": minutes}
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  assert recipe_lib.laid_out(path) == {}


def test_a_length_of_another_type_is_refused_by_name(tmp_path):
  path = used_workdir.make(tmp_path)
  stored = json.loads((path / recipe_lib.RECIPE).read_text())
  stored["train"]["epochs"] = "2"
  (path / recipe_lib.RECIPE).write_text(json.dumps(stored))
  with pytest.raises(errors_lib.WorkdirError, match=r"json.*train.epochs is "):
    recipe_lib.check_recipe(path, used_workdir.recipe())
