"""The in-memory pipeline: which images each step gets, on any devices."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling as sampling_lib
from paws_jax.parallel import mesh as mesh_lib

pytestmark = pytest.mark.unoptimized

NUM_IMAGES, BATCH, SEED = 45, 8, 5
STEPS_PER_EPOCH = 5


def _images():
  """Image i holds i in its first pixel, and i² mod 251 elsewhere."""
  ids = np.arange(NUM_IMAGES)
  images = np.empty((NUM_IMAGES, 3, 4, 1), np.uint8)
  images[:] = (ids**2 % 251)[:, None, None, None]
  images[:, 0, 0, 0] = ids
  return images


def _index():
  labels = np.arange(NUM_IMAGES) % 3
  return sampling_lib.label_index(
    np.arange(12), labels, class_names=("a", "b", "c")
  )


SUPPORT = config_lib.Support(
  **dict(config_lib.base().support)
  | {"classes_per_step": 3, "images_per_class": 2}
)


@functools.cache
def _pipeline(num_devices, **settings):
  pipeline = memory_pipeline.InMemory(
    _images(),
    _index(),
    support=settings.pop("support", SUPPORT),
    batch_size=settings.pop("batch_size", BATCH),
    seed=SEED,
    mesh=mesh_lib.make_mesh(jax.devices()[:num_devices]),
    **settings,
  )
  return pipeline, jax.jit(pipeline.batch)


@functools.cache
def _batch(num_devices, step, **settings):
  pipeline, batch = _pipeline(num_devices, **settings)
  return batch(pipeline.inputs(step, 1), jnp.int32(step))


def _expected_ids(step):
  epoch, place = divmod(step, STEPS_PER_EPOCH)
  order = np.asarray(_order(epoch))
  return order[place * BATCH : (place + 1) * BATCH]


@functools.cache
def _order(epoch):
  return sampling_lib.epoch_order(NUM_IMAGES, seed=SEED, epoch=epoch)


def test_steps_per_epoch_counts_whole_batches():
  assert _pipeline(1)[0].steps_per_epoch == STEPS_PER_EPOCH


@pytest.mark.parametrize("step", [0, 4, 5, 13])
def test_a_step_takes_the_next_batch_of_its_epochs_order(step):
  batch = _batch(1, step)
  np.testing.assert_array_equal(batch.unlabelled.id, _expected_ids(step))


def test_the_images_are_those_of_the_ids():
  batch = _batch(4, 6)
  for canvases in (batch.unlabelled, batch.support):
    ids = np.asarray(canvases.id)
    assert canvases.image.dtype == jnp.uint8
    np.testing.assert_array_equal(canvases.image, _images()[ids])
    np.testing.assert_array_equal(canvases.size, [[3, 4]] * len(ids))


def test_supports_are_the_class_balanced_draw():
  batch = _batch(1, 7)
  ids, labels, class_ids = sampling_lib.class_balanced_indices(
    _index(), seed=SEED, step=7, classes_per_step=3, images_per_class=2
  )
  np.testing.assert_array_equal(batch.support.id, ids)
  np.testing.assert_array_equal(batch.support_labels, labels)
  np.testing.assert_array_equal(batch.support_labels, np.asarray(ids) % 3)
  np.testing.assert_array_equal(batch.class_ids, class_ids)
  np.testing.assert_array_equal(batch.support_slot, [0, 1, 0, 1, 0, 1])
  assert batch.support_mask is None


@pytest.mark.parametrize("steps_per_call", [1, 2, 3, 5, 7, 10])
def test_ids_do_not_depend_on_steps_per_call(steps_per_call):
  # 2 and 3 cross borders of epochs (of 5 steps) at every place; 7 spans two
  # or three epochs; 5 and 10 are whole ones.
  pipeline, _ = _pipeline(1)
  unlabelled = jax.jit(lambda inputs, step: pipeline.batch(inputs, step)[0].id)
  num_orders = set()
  for first in range(0, 42, steps_per_call):
    inputs = pipeline.inputs(first, steps_per_call)
    num_orders.add(inputs.orders.shape)
    for step in range(first, first + steps_per_call):
      np.testing.assert_array_equal(
        unlabelled(inputs, jnp.int32(step)), _expected_ids(step)
      )
  # One shape, so that the program is compiled once.
  assert len(num_orders) == 1


def test_inputs_hold_no_more_epochs_than_a_call_can_touch():
  pipeline, _ = _pipeline(1)
  for steps_per_call, most in ((1, 1), (5, 1), (10, 2), (2, 2), (7, 3)):
    inputs = pipeline.inputs(0, steps_per_call)
    assert inputs.orders.shape == (most, NUM_IMAGES)


def test_inputs_may_start_anywhere_as_after_a_resume():
  pipeline, batch = _pipeline(1)
  for first in (18, 4, 30):
    inputs = pipeline.inputs(first, 2)
    assert int(inputs.first_epoch) == first // STEPS_PER_EPOCH
    ids = batch(inputs, jnp.int32(first + 1)).unlabelled.id
    np.testing.assert_array_equal(ids, _expected_ids(first + 1))


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_ids_do_not_depend_on_the_devices(num_devices):
  one, many = _batch(1, 13), _batch(num_devices, 13)
  np.testing.assert_array_equal(many.unlabelled.id, one.unlabelled.id)
  np.testing.assert_array_equal(many.support.id[:6], one.support.id)
  np.testing.assert_array_equal(many.support_slot[:6], one.support_slot)
  np.testing.assert_array_equal(many.support_labels, one.support_labels)
  np.testing.assert_array_equal(many.class_ids, one.class_ids)


@pytest.mark.parametrize(("num_devices", "padding"), [(2, 0), (4, 2), (8, 2)])
def test_supports_are_padded_and_masked_to_fill_the_devices(
  num_devices, padding
):
  batch = _batch(num_devices, 13)
  assert batch.support.image.shape[0] == 6 + padding
  assert batch.support_slot.shape == (6 + padding,)
  assert batch.support_labels.shape == (6,)
  if padding:
    np.testing.assert_array_equal(
      batch.support_mask, [True] * 6 + [False] * padding
    )
    # Padding repeats the last support.
    np.testing.assert_array_equal(batch.support.id[6:], batch.support.id[5])
  else:
    assert batch.support_mask is None


@pytest.mark.parametrize("num_steps", [1, 3, 5, 7])
@pytest.mark.parametrize("sampling", ["balanced", "uniform"])
def test_the_shapes_of_inputs_are_known_beforehand(num_steps, sampling):
  support = SUPPORT if sampling == "balanced" else UNIFORM
  pipeline, _ = _pipeline(2, support=support)
  inputs = pipeline.inputs(0, num_steps)
  for struct, array in zip(
    jax.tree.leaves(pipeline.input_shapes(num_steps)),
    jax.tree.leaves(inputs),
    strict=True,
  ):
    assert (struct.shape, struct.dtype) == (array.shape, array.dtype)
    assert struct.sharding.is_equivalent_to(array.sharding, array.ndim)


def test_images_are_spread_and_labels_whole():
  batch = _batch(4, 13)
  mesh = mesh_lib.make_mesh(jax.devices()[:4])
  for array in (*batch.unlabelled, *batch.support, batch.support_mask):
    spread = mesh_lib.batch_sharded(mesh)
    assert array.sharding.is_equivalent_to(spread, array.ndim)
  for array in (batch.support_labels, batch.class_ids):
    assert array.sharding.is_fully_replicated


@pytest.mark.parametrize("num_devices", [2, 4])
def test_every_device_gathers_its_images_alone(num_devices):
  # Without padding and with: nothing is sent between devices.
  pipeline, batch = _pipeline(num_devices)
  program = batch.lower(pipeline.inputs(0, 1), jnp.int32(0)).compile()
  assert not re.search(r" (all|reduce|collective)-[a-z-]+\(", program.as_text())


def test_methods_without_unlabelled_images_get_none():
  batch = jax.eval_shape(
    _pipeline(1, with_unlabelled=False)[0].batch,
    _pipeline(1)[0].inputs(0, 1),
    jnp.int32(0),
  )
  assert batch.unlabelled is None
  assert batch.support.image.shape == (6, 3, 4, 1)


def test_methods_without_labelled_images_get_none():
  pipeline, batch = _pipeline(1, support=None)
  batch = batch(pipeline.inputs(3, 1), jnp.int32(3))
  assert batch[1:] == (None,) * 5
  np.testing.assert_array_equal(batch.unlabelled.id, _expected_ids(3))


UNIFORM = dataclasses.replace(SUPPORT, sampling="uniform", batch_size=5)


def _uniform_batches(num_devices, steps, steps_per_call=1):
  pipeline, batch = _pipeline(num_devices, support=UNIFORM)
  for step in steps:
    first = step - step % steps_per_call
    inputs = pipeline.inputs(first, steps_per_call)
    yield jax.device_get(batch(inputs, jnp.int32(step)))


def test_uniform_supports_are_an_epoch_after_the_other():
  batches = list(_uniform_batches(1, range(12)))
  ids = np.concatenate([batch.support.id for batch in batches])
  for epoch in ids.reshape(5, 12):
    assert sorted(epoch) == list(range(12))
  for batch in batches:
    np.testing.assert_array_equal(batch.support_labels, batch.support.id % 3)
    np.testing.assert_array_equal(
      batch.support.image[:, 0, 0, 0], batch.support.id
    )
    np.testing.assert_array_equal(batch.class_ids, [0, 1, 2])
  # Step 2 takes places 10 to 14: the next epoch begins in it.
  np.testing.assert_array_equal(batches[2].support_slot, [0, 0, 1, 1, 1])


@pytest.mark.parametrize("num_devices", [2, 4])
@pytest.mark.parametrize("steps_per_call", [1, 3])
def test_uniform_supports_depend_on_neither_devices_nor_calls(
  num_devices, steps_per_call
):
  # As after a resume, in any order.
  steps = (7, 2, 8, 3)
  for one, many in zip(
    _uniform_batches(1, steps),
    _uniform_batches(num_devices, steps, steps_per_call),
    strict=True,
  ):
    np.testing.assert_array_equal(many.support.id[:5], one.support.id)
    np.testing.assert_array_equal(many.support_slot[:5], one.support_slot)
    np.testing.assert_array_equal(many.support_labels, one.support_labels)
    padding = -5 % num_devices
    np.testing.assert_array_equal(
      many.support_mask, [True] * 5 + [False] * padding
    )


def test_uniform_supports_are_gathered_by_each_device_alone():
  pipeline, batch = _pipeline(4, support=UNIFORM)
  program = batch.lower(pipeline.inputs(0, 3), jnp.int32(0)).compile()
  assert not re.search(r" (all|reduce|collective)-[a-z-]+\(", program.as_text())


def test_labelled_images_alone_leave_nothing_to_draw():
  with pytest.raises(ValueError, match=r"every image is labelled, and data\."):
    _pipeline.__wrapped__(1, pool=np.zeros(0, np.int32))


def test_fewer_images_than_a_batch_are_refused():
  with pytest.raises(ValueError, match=r"train.batch_size is 46 .*45 images"):
    _pipeline(1, batch_size=46)


def test_a_batch_that_the_devices_do_not_divide_is_refused():
  with pytest.raises(ValueError, match=r"train.batch_size is 10, which 4 dev"):
    _pipeline(4, batch_size=10)


def test_a_batch_may_be_the_whole_training_set():
  assert _pipeline(1, batch_size=45)[0].steps_per_epoch == 1
