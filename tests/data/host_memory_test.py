"""Canvases that stay in the host's memory: same bytes, same steps."""

import functools

import jax
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import host_memory
from paws_jax.parallel import mesh as mesh_lib
from paws_jax.plan import abstract_step
from paws_jax.plan import memory
from paws_jax.plan import traced_costs
from paws_jax.training import experiment
from paws_jax.training import step as step_lib
from tests import small_runs
from tests import tiny_recipe

pytestmark = pytest.mark.unoptimized


def _config(root, **changes):
  config = tiny_recipe.get_config()
  config.update_from_flattened_dict(
    small_runs.SMALL
    | small_runs.on_disk(root)
    | {
      "data.canvas_size": 32,
      "data.canvas_memory": "host",
      "train.chunks": 2,
    }
    | {name.replace("__", "."): value for name, value in changes.items()}
  )
  return config


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
  return small_runs.write_photos(tmp_path_factory.mktemp("photos"))


@pytest.mark.parametrize("side", [32, 64])
def test_words_are_the_bytes_of_images(side):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (4, side, side, 3), np.uint8)
  words = host_memory.pack(images)
  assert words.shape == (4, *host_memory.packed_shape(images.shape[1:]))
  # Four quarters, one above the other.
  quarter = side // 4
  first = words.reshape(4, quarter, side, 3)[0, 0, 0, 0]
  assert first & 255 == images[0, 0, 0, 0]
  assert (first >> 16) & 255 == images[0, 2 * quarter, 0, 0]
  mesh = mesh_lib.make_mesh(jax.devices()[:2])
  there = mesh_lib.from_local_rows(words, mesh, memory=host_memory.KIND)
  assert there.sharding.memory_kind == host_memory.KIND
  here = jax.jit(host_memory.unpack)(there)
  assert here.sharding.memory_kind != host_memory.KIND
  np.testing.assert_array_equal(here, images)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"data__canvas_size": 40}, "canvas_size is 40 .* a multiple of 32"),
    ({"train__steps_per_call": 2}, "steps_per_call is 2 .* set it to 1"),
    ({"views__crop_on": "host"}, "crop_on is 'host' .* crops are sent, and"),
    (
      {"data__pipeline": "memory", "data__source": "digits"},
      "data.pipeline is 'memory' but .* all images lie on the devices anyway",
    ),
  ],
)
def test_where_canvases_cannot_stay(changes, message, tmp_path):
  config = _config(tmp_path, **changes)
  if config.data.source == "digits":
    config.data.dir = config.data.unlabelled_dir = ""
  with pytest.raises(errors.InputError, match=message):
    config_lib.resolve(config)


def test_what_a_plan_counts(photos):
  there, here = (
    abstract_step.create(
      _config(photos, data__canvas_memory=place), jax.devices()[:2]
    )
    for place in ("host", "device")
  )
  canvas = 32 * 32 * 3
  assert there.host_bytes == (16 + 8) * canvas
  assert here.host_bytes == 0
  # Four batches of 8 + 4 images of a device, and two of the two chunks.
  less = memory.memory(here).images - memory.memory(there).images
  assert less == (4 - 1) * 12 * canvas
  # Large crops with the supports, and small crops: each forward and backward.
  jaxpr = there.trace().jaxpr.jaxpr
  assert traced_costs.host_bytes_read(jaxpr) == (4 * 8 + 2 * 4) * canvas


def test_on_a_cpu_they_take_its_memory(photos):
  needed = [
    memory.memory(
      experiment.create(
        config_lib.resolve(_config(photos, data__canvas_memory=place)),
        devices=jax.devices()[:2],
      )
    )
    for place in ("host", "device")
  ]
  assert needed[0] == needed[1]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("chunks", "one_program"), [(1, True), (2, True), (2, False)]
)
def test_steps_are_those_of_canvases_on_the_devices(
  photos, chunks, one_program
):
  """Also in both forms of a step in chunks, on two devices."""
  after = []
  for place in ("host", "device"):
    changes = {"train__chunks": chunks, "data__canvas_memory": place}
    recipe = config_lib.resolve(_config(photos, **changes))
    built = experiment.create(recipe, devices=jax.devices()[:2])
    call = step_lib.make_train_call(
      built.trainer, built.pipeline, 1, one_program=one_program
    )
    with built.pipeline as pipeline:
      state = built.initial_state()
      for step in range(2):
        inputs = pipeline.inputs(step, 1)
        kind = inputs.batches[0].unlabelled.image.sharding.memory_kind
        assert (kind == host_memory.KIND) == (place == "host")
        state, metrics = call(state, inputs)
    after.append(jax.device_get((state, metrics)))
  # Programs of chunks add in different orders.
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
  same = np.testing.assert_array_equal if one_program else close
  jax.tree.map(same, *after)
