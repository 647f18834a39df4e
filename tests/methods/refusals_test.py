"""Recipes that methods without negatives, queues or labels cannot follow."""

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import methods
from paws_jax.config import methods as sections
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.training import experiment
from paws_jax.training import intervals
from paws_jax.training import length
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized

TWO_VIEWS = ("moco", "byol", "simsiam", "msf", "cmsf")


def _recipe(name, **changes):
  """The tiny recipe, of 5 steps an epoch, with another method."""
  config = tiny_recipe.get_config()
  config.method = config_lib.method_section(name)
  config.views.small.count = 0
  config.update_from_flattened_dict(
    {key.replace("__", "."): value for key, value in changes.items()}
  )
  return config


# --- Sections against each other ---------------------------------------------


@pytest.mark.parametrize(
  ("name", "fields", "message"),
  [
    ("moco", {"queue_size": 255}, r"queue_size is 255 but train\.batch_size"),
    ("swav", {"queue_size": 255}, r"queue_size is 255 .* 0 is no queue"),
    ("swav_suncet", {"queue_size": 1}, r"queue_size is 1 but train\.batch"),
    ("msf", {"bank_size": 255}, r"bank_size is 255 but train\.batch_size"),
    ("cmsf", {"bank_size": 1}, r"bank_size is 1 but train\.batch_size"),
    ("msf", {"bank_size": 300, "k": 301}, r"k is 301 but method\.bank_size"),
  ],
)
def test_tables_that_cannot_serve_are_refused(name, fields, message):
  config = _recipe(name)
  config.method.update(fields)
  with pytest.raises(errors.InputError, match=rf"^method\.{message}"):
    config_lib.resolve(config)


@pytest.mark.parametrize(
  ("name", "fields"),
  [
    ("moco", {"queue_size": 256}),
    ("msf", {"bank_size": 256, "k": 256}),
    ("swav", {"queue_size": 256}),
    ("cmsf", {"constraint": "second_query", "k": 5, "k_previous": 5}),
  ],
)
def test_the_smallest_that_serve_are_not(name, fields):
  config = _recipe(name)
  config.method.update(fields)
  config_lib.resolve(config)


# --- The length of the run ---------------------------------------------------


@pytest.mark.parametrize(
  ("name", "fields", "total_steps", "message"),
  [
    ("swav", {"freeze_steps": 10}, 10, r"freeze_steps is 10 but .* 10 steps"),
    ("swav_suncet", {}, 300, r"freeze_steps is 313 but the run has 300"),
    ("cmsf", {}, 5, r"constraint is 'kmeans' but the run has 5 steps of 5"),
    (
      "cmsf",
      {"constraint": "second_query"},
      5,
      r"constraint is 'second_query' .* after step 5 only",
    ),
    (
      "swav",
      {"queue_size": 8, "queue_from_epochs": 2.0, "freeze_steps": 0},
      12,
      r"queue_from_epochs is 2 and method\.queue_size 8, .* after step 12",
    ),
    (
      "cmsf",
      {"constraint": "pseudo_labels"},
      2,
      r"constraint is 'pseudo_labels' .* after step 2 only",
    ),
    (
      "cmsf",
      {"constraint": "pseudo_labels", "rounds_per_epoch": 6},
      50,
      r"rounds_per_epoch is 6 but an epoch has 5 steps",
    ),
  ],
)
def test_what_a_run_is_too_short_for(name, fields, total_steps, message):
  section = sections.build({"name": name} | fields)
  with pytest.raises(errors.InputError, match=rf"^method\.{message}"):
    section.check_length(
      batch_size=4, steps_per_epoch=5, total_steps=total_steps
    )
  # One step, or one round, more is enough.
  longer = sections.build({"name": name} | fields | _fewer_rounds(fields))
  longer.check_length(
    batch_size=4, steps_per_epoch=5, total_steps=total_steps + 14
  )


def _fewer_rounds(fields):
  return {"rounds_per_epoch": 5} if "rounds_per_epoch" in fields else {}


def test_the_length_is_known_when_a_run_is_made():
  config = _recipe("swav", method__freeze_steps=10, method__num_prototypes=20)
  recipe = config_lib.resolve(config)
  with pytest.raises(errors.InputError, match=r"freeze_steps is 10 but the"):
    length.check(recipe, experiment.create(recipe))
  # Epochs that fit into minutes are not known yet.
  config.train.update(epochs=0, minutes=1.0)
  recipe = config_lib.resolve(config)
  length.check(recipe, experiment.create(recipe))


def test_steps_of_a_call_divide_the_parts_of_an_epoch():
  config = _recipe("cmsf", method__constraint="pseudo_labels")
  config.update_from_flattened_dict(
    {
      # 6 steps an epoch, rounds after 3 and 6.
      "train.batch_size": 232,
      "train.steps_per_call": 2,
      "eval.every_steps": 0,
      "checkpoint.every_steps": 0,
    }
  )
  with pytest.raises(
    errors.InputError,
    match=r"steps_per_call is 2, .* the method acts, 3 \(2 epochs of 6 steps",
  ):
    experiment.create(config_lib.resolve(config))
  config.train.steps_per_call = 3
  every = intervals.create(experiment.create(config_lib.resolve(config)))
  assert (every.within_epoch, every.epoch) == ((3,), 6)


# --- Crops -------------------------------------------------------------------


def _views(name, **counts):
  config = config_lib.base(name)
  config.views.small.count = 0
  for view, count in counts.items():
    if view not in config.views:
      config.views[view] = config_lib.view_spec(size=224)
    config.views[view].count = count
  section = config_lib.build_views(config.views)
  method = methods.METHODS[name](config=sections.default(name))
  return method.views(section)


@pytest.mark.parametrize("name", TWO_VIEWS)
def test_two_large_crops_are_compared(name):
  assert list(_views(name)) == ["large"]
  assert list(_views(name, large=1, second=1)) == ["large", "second"]
  for counts in (
    {"large": 1},
    {"large": 3},
    {"large": 2, "second": 1},
    {"large": 1, "second": 2},
    {"large": 0, "second": 2},
  ):
    with pytest.raises(
      errors.InputError, match=rf"^views\.large\.count is .*{name!r}"
    ):
      _views(name, **counts)


@pytest.mark.parametrize("name", sorted(set(TWO_VIEWS) - {"byol"}))
def test_small_crops_are_refused(name):
  with pytest.raises(
    errors.InputError, match=rf"^views\.small\.count is 6 .*{name!r}"
  ):
    _views(name, small=6)


def test_small_crops_predict_the_large_ones():
  for name in ("byol", "swav", "swav_suncet"):
    assert list(_views(name, small=6)) == ["large", "small"]


@pytest.mark.parametrize("name", ["swav", "swav_suncet"])
@pytest.mark.parametrize(
  ("counts", "field"), [({"large": 1}, "large"), ({"second": 1}, "second")]
)
def test_two_large_crops_are_assigned(name, counts, field):
  with pytest.raises(
    errors.InputError, match=rf"^views\.{field}\.count is 1 .*{name!r}"
  ):
    _views(name, **counts)


def test_both_views_have_one_size():
  config = config_lib.base("byol")
  config.views.small.count = 0
  config.views.large.count = 1
  config.views.second = config_lib.view_spec(count=1, size=192)
  method = methods.METHODS["byol"](config=sections.default("byol"))
  with pytest.raises(
    errors.InputError, match=r"large\.size is 224 and views\.second\.size is 19"
  ):
    method.views(config_lib.build_views(config.views))


# --- Labels and devices ------------------------------------------------------


def _arrays(labels):
  rng = np.random.default_rng(0)
  return arrays_lib.Arrays(
    name="toy",
    class_names=("ant", "bee"),
    train_images=rng.integers(0, 256, (44, 8, 8, 1), np.uint8),
    train_labels=np.asarray(labels, np.int32),
    test_images=np.zeros((0, 8, 8, 1), np.uint8),
    test_labels=np.zeros(0, np.int32),
  )


@pytest.mark.parametrize("constraint", ["labels", "pseudo_labels"])
def test_constraints_by_labels_need_some(constraint):
  config = _recipe(
    "cmsf",
    method__constraint=constraint,
    data__labels_per_class=0,
    train__batch_size=8,
  )
  recipe = config_lib.resolve(config)
  with pytest.raises(
    errors.InputError, match=rf"^method\.constraint is {constraint!r} but no"
  ):
    experiment.create(recipe, arrays=_arrays([-1] * 44))
  experiment.create(recipe, arrays=_arrays([0, 1] * 22))


@pytest.mark.parametrize("name", ["moco", "byol", "simsiam", "swav", "msf"])
def test_the_devices_divide_the_rows_of_queue_and_bank(name):
  config = _recipe(name, train__batch_size=9, data__labels_per_class=0)
  config.method.update({"freeze_steps": 0} if name == "swav" else {})
  with pytest.raises(errors.InputError, match=r"train\.batch_size is 9"):
    experiment.create(
      config_lib.resolve(config),
      devices=jax.devices()[:2],
      arrays=_arrays([0, 1] * 22),
    )
