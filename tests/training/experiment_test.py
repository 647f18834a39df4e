"""From a recipe to its parts, and what is refused on the way."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.training import experiment

pytestmark = pytest.mark.unoptimized

NUM_TRAIN = 44


@functools.cache
def _arrays(channels=1):
  rng = np.random.default_rng(0)
  labels = np.arange(NUM_TRAIN, dtype=np.int32) % 5
  return arrays_lib.Arrays(
    name="toy",
    class_names=("ant", "bee", "cat", "dog", "elk"),
    train_images=rng.integers(0, 256, (NUM_TRAIN, 8, 10, channels), np.uint8),
    train_labels=labels,
    test_images=rng.integers(0, 256, (7, 8, 10, channels), np.uint8),
    test_labels=labels[:7],
  )


def _config(**changes):
  """A recipe for the toy data; `a__b=1` sets field a.b."""
  config = config_lib.base()
  config.data.labels_per_class = 3
  config.views.large.size = 8
  config.views.small.count = 1
  config.views.small.size = 6
  for view in (config.views.large, config.views.small):
    view.jitter_probability = 0.0
    view.grey_probability = 0.0
    view.blur_probability = 0.0
  config.views.mean = (0.5,)
  config.views.std = (0.25,)
  config.views.eval_resize = 0
  config.support.classes_per_step = 5
  config.support.images_per_class = 3
  config.model.name = "resnet_tiny"
  config.model.output_dim = 8
  config.model.prediction_head = False
  config.optim.warmup_epochs = 1
  config.train.batch_size = 8
  config.train.epochs = 4
  config.train.steps_per_call = 5
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  config_lib.resolve(config)
  return config


def _create(num_devices=2, channels=1, **changes):
  return experiment.create(
    config_lib.resolve(_config(**changes)),
    devices=jax.devices()[:num_devices],
    arrays=_arrays(channels),
  )


def test_steps_are_whole_batches_times_epochs():
  built = _create()
  # 44 images make 5 batches of 8; what is left over waits.
  assert built.pipeline.steps_per_epoch == 5
  assert built.total_steps == 20
  assert built.trainer.schedule(0) == pytest.approx(0.3)
  assert built.trainer.schedule(5) == pytest.approx(6.4)
  assert built.trainer.schedule(20) == pytest.approx(0.064)


def test_the_parts_take_the_recipes_fields():
  built = _create(
    seed=11,
    support__num_views=2,
    method__temperature=0.2,
    support__label_smoothing=0.3,
    train__remat="dots",
    eval__every_steps=10,
    checkpoint__every_steps=5,
    log__every_steps=3,
  )
  assert built.trainer.seed == 11
  assert built.trainer.num_support_views == 2
  assert built.trainer.views.crops["large"].size == 8
  assert built.temperature == built.trainer.method.config.temperature == 0.2
  assert built.trainer.method.label_smoothing == 0.3
  assert built.trainer.method.remat == "dots"
  assert built.train.batch_size == 8
  assert built.eval.every_steps == 10
  assert built.checkpoint.every_steps == 5
  assert built.log.every_steps == 3
  assert built.trainer.mesh.size == 2
  # Of LARS: its trust ratios are reported.
  assert built.trainer.observe is not None


def test_what_a_method_counts_in_epochs_is_in_steps():
  built = _create(
    method__name="suncet",
    method__support_loss_weight=1.0,
    method__supervised_until_epochs=2.0,
    views__small__count=0,
  )
  assert built.trainer.method.config.supervised_until == 10


def test_a_step_processes_unlabelled_images_or_supports():
  assert _create().images_per_step == 8
  supervised = _create(method__name="supervised")
  assert supervised.images_per_step == 15
  assert supervised.trainer.views.crops == {}


@pytest.mark.slow
def test_the_first_state_depends_on_the_seed_and_not_on_the_devices():
  states = [
    jax.device_get(_create(num_devices, seed=seed).initial_state())
    for num_devices, seed in ((1, 0), (4, 0), (1, 1))
  ]
  leaves = [jax.tree.leaves(state.params) for state in states]
  for one, four in zip(leaves[0], leaves[1], strict=True):
    np.testing.assert_array_equal(one, four)
  differ = [np.any(a != b) for a, b in zip(leaves[0], leaves[2], strict=True)]
  # Scales and biases of BatchNorm start as ones and zeros whatever the seed.
  kernels = [leaf.ndim > 1 for leaf in leaves[0]]
  assert all(d for d, kernel in zip(differ, kernels, strict=True) if kernel)
  assert states[0].step == 0
  assert states[0].finite


@pytest.mark.slow
def test_a_first_state_can_be_made_in_float64():
  with jax.enable_x64(True):
    shapes = jax.eval_shape(_create().initial_state)
  assert shapes.step.dtype == np.int32


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"train__steps_per_call": 3},
      "train.steps_per_call is 3, which does not divide the total number of "
      "steps, 20 (4 epochs of 5 steps",
    ),
    (
      {"train__epochs": 2**31 - 1},
      "2147483647 epochs of 5 steps are 10737418235 steps: a run has at most "
      "2147483647; lower train.epochs",
    ),
    (
      {"eval__every_steps": 7},
      "train.steps_per_call is 5, which does not divide eval.every_steps, 7",
    ),
    (
      {"checkpoint__every_steps": 6},
      "train.steps_per_call is 5, which does not divide "
      "checkpoint.every_steps, 6",
    ),
    (
      {"views__mean": (0.5,) * 3, "views__std": (0.5,) * 3},
      "views.mean and views.std have 3 and 3 values but toy has 1 channels",
    ),
    (
      {"views__large__size": 9},
      "views.large.size is 9 but the short side of an evaluation image is 8",
    ),
    (
      {"views__eval_resize": 7},
      "views.large.size is 8 but the short side of an evaluation image is 7",
    ),
    (
      {"support__classes_per_step": 6},
      "support.classes_per_step is 6 but the data has 5 classes",
    ),
    (
      {"support__images_per_class": 4},
      "class 'ant' has 3 labelled images but support.images_per_class is 4",
    ),
    (
      {"train__batch_size": 46},
      "train.batch_size is 46 but there are 44 images to train",
    ),
    (
      {"train__batch_size": 9},
      "train.batch_size is 9, which 2 devices do not divide",
    ),
    (
      {"views__large__count": 1},
      "views.large.count is 1: paws compares at least 2",
    ),
    ({"method__name": "pows"}, "method.name is 'pows'; known are paws, "),
    ({"optim__name": "lion"}, "optim.name is 'lion'; known are lars, "),
    ({"model__name": "resnet9"}, "model.name is 'resnet9'; known are resnet50"),
  ],
)
def test_what_does_not_fit_is_refused_with_both_numbers(changes, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    _create(**changes)


def test_all_classes_are_drawn_where_the_recipe_does_not_count_them():
  built = _create(support__classes_per_step=0)
  batch = built.pipeline.batch(built.pipeline.inputs(0, 5), np.int32(0))
  assert sorted(batch.class_ids.tolist()) == [0, 1, 2, 3, 4]


def test_one_class_is_too_few():
  arrays = _arrays()
  one = dataclasses.replace(
    arrays,
    class_names=("ant",),
    train_labels=np.zeros_like(arrays.train_labels),
    test_labels=np.zeros_like(arrays.test_labels),
  )
  with pytest.raises(ValueError, match="toy has 1 class: a soft label needs"):
    experiment.create(
      config_lib.resolve(_config()), devices=jax.devices()[:1], arrays=one
    )


def test_with_replacement_few_labels_fill_a_support():
  built = _create(support__images_per_class=4, support__with_replacement=True)
  assert built.trainer.method.label_smoothing == 0.1


def test_a_larger_evaluation_image_lets_crops_be_larger():
  assert _create(views__large__size=9, views__eval_resize=9).total_steps == 20


@pytest.mark.parametrize("section", sorted(set(config_lib.base()) - {"seed"}))
def test_an_unknown_field_is_refused_by_name(section):
  config = _config()
  config[section].bogus_field = 1
  with pytest.raises(TypeError, match="bogus_field"):
    experiment.create(
      config_lib.resolve(config), devices=jax.devices()[:2], arrays=_arrays()
    )
