"""A recipe's step without its data and devices is the step that trains."""

import importlib.util
import pathlib
import re

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.plan import abstract_step
from paws_jax.plan import memory
from paws_jax.training import experiment
from paws_jax.training import step as step_lib

_ROOT = pathlib.Path(__file__).parents[2]


def _recipe(path, variant=None, **changes):
  spec = importlib.util.spec_from_file_location("recipe", _ROOT / path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config(*([variant] if variant else []))
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  config_lib.resolve(config)
  return config


def _devices(num_devices):
  return jax.devices()[:num_devices]


def _tiny(num_devices=4, **changes):
  config = _recipe(
    "tests/tiny_recipe.py", model__name="small_resnet", **changes
  )
  return config, abstract_step.create(
    config_lib.resolve(config), _devices(num_devices)
  )


def _shapes(tree):
  return jax.tree.map(lambda x: (x.shape, str(x.dtype), x.sharding), tree)


@pytest.mark.slow
@pytest.mark.parametrize("steps_per_call", [1, 5])
def test_the_program_is_that_of_the_experiment(steps_per_call):
  config, step = _tiny(
    model__dtype="float32",
    train__steps_per_call=steps_per_call,
    eval__every_steps=5,
    checkpoint__every_steps=5,
  )
  built = experiment.create(
    config_lib.resolve(config), devices=jax.devices()[:4]
  )
  inputs = built.pipeline.input_shapes(steps_per_call)
  assert _shapes(step.inputs) == _shapes(inputs)
  call = step_lib.make_train_call(built.trainer, built.pipeline, 1)
  real = call.trace(step.state, inputs).lower().as_text()
  assert step.trace().lower().as_text() == real
  assert step.images_per_step == built.images_per_step
  assert step.pipeline.steps_per_epoch == built.pipeline.steps_per_epoch
  state = jax.eval_shape(built.initial_state)
  assert jax.tree.map(lambda x: (x.shape, x.dtype), step.state) == (
    jax.tree.map(lambda x: (x.shape, x.dtype), state)
  )


@pytest.mark.slow
def test_the_step_can_be_lowered_for_accelerators():
  _, step = _tiny(model__dtype="auto")
  for platform in ("tpu", "cuda"):
    text = step.trace().lower(lowering_platforms=(platform,)).as_text()
    # Activations as they are on accelerators.
    assert re.search(r"stablehlo.convolution.*bf16", text)
    assert "stablehlo.all_gather" in text


def test_imagenet_is_planned_without_imagenet():
  step = abstract_step.create(
    config_lib.resolve(_recipe("configs/imagenet.py")), _devices(8)
  )
  assert step.pipeline.steps_per_epoch == 312
  assert step.images_per_step == 4096
  assert step.num_supports == 6720
  batch = step.batch
  assert batch.unlabelled.image.shape == (4096, 512, 512, 3)
  assert batch.support.image.shape == (6720, 512, 512, 3)
  assert batch.class_ids.shape == (960,)
  image = step.inputs.batches[0].unlabelled.image
  assert image.sharding.shard_shape(image.shape) == (512, 512, 512, 3)


def test_crops_of_the_host_are_planned_as_what_is_sent():
  on_device, on_host = (
    abstract_step.create(
      config_lib.resolve(_recipe("configs/imagenet.py", views__crop_on=place)),
      _devices(8),
    )
    for place in ("device", "host")
  )
  unlabelled = on_host.batch.unlabelled
  assert {name: x.shape for name, x in unlabelled.views.items()} == {
    "large": (4096, 2, 224, 224, 3),
    "small": (4096, 6, 96, 96, 3),
  }
  assert on_host.batch.support.views["support"].shape == (6720, 1, 224, 224, 3)
  sent = {step: memory.num_bytes(step.batch) for step in (on_device, on_host)}
  pixels = 4096 * (2 * 224**2 + 6 * 96**2) + 6720 * 224**2
  assert sent[on_host] == pytest.approx(3 * pixels, rel=1e-3)
  assert sent[on_host] < 0.4 * sent[on_device]


def test_images_in_memory_are_planned_without_them():
  config = _recipe("configs/cifar10.py")
  step = abstract_step.create(config_lib.resolve(config), _devices(2))
  assert step.inputs.images.shape == (50_000, 32, 32, 3)
  assert step.inputs.images.dtype == np.uint8
  assert step.inputs.images.sharding.mesh.size == 2
  assert step.pipeline.steps_per_epoch == 50_000 // config.train.batch_size
  resized = _recipe("configs/cifar10.py", data__image_size=40)
  step = abstract_step.create(config_lib.resolve(resized), _devices(2))
  assert step.inputs.images.shape == (50_000, 40, 40, 3)


def test_labelled_images_may_be_left_out_of_the_pool():
  changes = {"data__labels_file": "", "data__include_labelled": False}
  for labels, steps in (
    ({"data__labels_per_class": 281}, (1_281_167 - 281_000) // 4096),
    (
      {"data__labels_per_class": 0, "data__labels_fraction": 0.5},
      (1_281_167 - 640_583) // 4096,
    ),
  ):
    config = _recipe("configs/imagenet.py", **changes, **labels)
    step = abstract_step.create(config_lib.resolve(config), _devices(1))
    assert step.pipeline.steps_per_epoch == steps


def test_batch_norm_groups_are_those_of_the_recipe():
  _, step = _tiny(train__bn_group_size=2)
  assert step.trainer.mesh.devices.shape == (2, 2)
  config = _recipe("tests/tiny_recipe.py", train__bn_group_size=3)
  with pytest.raises(ValueError, match="bn_group_size is 3, which does not"):
    abstract_step.create(config_lib.resolve(config), _devices(4))


def test_a_method_without_unlabelled_images():
  _, step = _tiny(method__name="supervised")
  assert step.batch.unlabelled is None
  assert step.images_per_step == step.num_supports == 10


@pytest.mark.parametrize(
  "recipe", ["tests/tiny_recipe.py", "configs/imagenet.py"]
)
def test_devices_must_divide_the_batch(recipe):
  config = _recipe(recipe, train__batch_size=28)
  with pytest.raises(ValueError, match="is 28, which 8 devices do not divide"):
    abstract_step.create(config_lib.resolve(config), _devices(8))


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"support__classes_per_step": 1001},
      "support.classes_per_step is 1001 but the data has 1000 classes",
    ),
    (
      {"data__pipeline": "memory"},
      "data.pipeline is 'memory' but the images of imagenet2012 differ in size",
    ),
    (
      {"train__batch_size": 2_000_000},
      "train.batch_size is 2000000 but there are 1281167 images",
    ),
  ],
)
def test_what_does_not_fit_the_data_is_refused(changes, message):
  config = _recipe("configs/imagenet.py", **changes)
  with pytest.raises(ValueError, match=re.escape(message)):
    abstract_step.create(config_lib.resolve(config), _devices(1))


def test_data_of_unknown_sizes_must_be_there(tmp_path):
  config = _recipe(
    "configs/imagenet.py",
    data__source="folder",
    data__tfds_name="",
    data__dir=str(tmp_path / "away"),
  )
  with pytest.raises(FileNotFoundError, match="away"):
    abstract_step.create(config_lib.resolve(config), _devices(1))
