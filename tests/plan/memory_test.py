"""The learning-rate rule, and the memory of a step before it is run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.doctor import sizes as sizes_lib
from paws_jax.plan import memory
from paws_jax.training import experiment

pytestmark = pytest.mark.unoptimized


def test_the_rule_goes_through_the_papers_two_recipes():
  assert sizes_lib.lars_peak_lr(4096) == 6.4
  assert sizes_lib.lars_peak_lr(256) == pytest.approx(1.2, rel=0.02)


def test_bytes_of_arrays_and_of_shapes():
  tree = {
    "a": np.zeros((2, 3), np.float32),
    "b": jax.ShapeDtypeStruct((4,), jnp.bfloat16),
    "c": jax.ShapeDtypeStruct((), np.bool_),
  }
  assert memory.num_bytes(tree) == 24 + 8 + 1


def _products(x, w):
  for _ in range(3):
    x = jax.nn.relu(x @ w)
  return x


def _kept(function, remat="none"):
  shapes = jnp.zeros((5, 7)), jnp.zeros((7, 7))
  return memory._activations(jax.make_jaxpr(function)(*shapes).jaxpr, remat)


def test_products_and_what_is_made_of_them_are_kept():
  # Three products of 5 x 7 float32.
  product = 5 * 7 * 4
  assert _kept(_products) == 3 * 2 * product
  # Wherever they are called.
  assert _kept(jax.jit(_products)) == 3 * 2 * product
  assert _kept(lambda x, w: x + w[0][None, :]) == 0


def test_convolutions_are_kept():
  def convolve(x, w):
    return jax.lax.conv(x[None, None], w[None, None], (1, 1), "SAME")

  assert _kept(convolve) == 2 * 5 * 7 * 4


def test_what_is_computed_anew_is_kept_once_or_one_at_a_time():
  def two(x, w):
    again = jax.checkpoint(_products)
    return again(x, w) + again(x, w @ w[0][:, None] * w)

  inside = 3 * 2 * 5 * 7 * 4
  outside = 2 * 7 * 1 * 4
  assert _kept(two, "dots") == 2 * inside // 2 + outside
  assert _kept(two, "all") == inside + outside


@functools.cache
def _create(num_devices, **changes):
  config = config_lib.base()
  config.data.labels_per_class = 2
  config.views.large.size = 8
  config.views.small.count = 1
  config.views.small.size = 4
  config.views.mean = (0.5, 0.5, 0.5)
  config.views.eval_resize = 0
  config.support.classes_per_step = 2
  config.support.images_per_class = 2
  config.model.name = "resnet_tiny"
  config.model.output_dim = 8
  config.train.batch_size = 8
  config.train.epochs = 10
  config.update_from_flattened_dict(
    {name.replace("__", "."): value for name, value in changes.items()}
  )
  images = np.zeros((12, 8, 8, 3), np.uint8)
  labels = np.arange(12, dtype=np.int32) % 2
  arrays = arrays_lib.Arrays("toy", ("a", "b"), images, labels, images, labels)
  devices = jax.devices()[:num_devices]
  return experiment.create(
    config_lib.resolve(config), devices=devices, arrays=arrays
  )


@pytest.mark.slow
def test_the_parts_of_a_step():
  built = _create(2)
  needed = memory.memory(built)
  state = built.initial_state()
  assert needed.state == memory.num_bytes(state)
  assert needed.gradients == 2 * memory.num_bytes(state.params)
  # On each device 4 unlabelled images and 2 supports.
  assert needed.views == pytest.approx(
    (4 * (2 * 8**2 + 4**2) + 2 * 8**2) * 3 * 4, abs=100
  )
  # All 12, and those of this step.
  assert needed.images == pytest.approx((12 + 6) * 8 * 8 * 3, abs=500)
  assert needed.total == sum(
    getattr(needed, name)
    for name in ("state", "gradients", "images", "views", "activations")
  )


@pytest.mark.slow
def test_activations_are_shared_among_devices_and_saved_by_remat():
  two, four = (memory.memory(_create(n)).activations for n in (2, 4))
  assert two == pytest.approx(2 * four, rel=0.15)
  dots, everything = (
    memory.memory(_create(2, train__remat=remat)).activations
    for remat in ("dots", "all")
  )
  assert dots == pytest.approx(two / 2, rel=0.1)
  assert everything < two


@pytest.mark.slow
def test_the_estimate_is_of_the_order_of_what_is_compiled():
  from paws_jax.training import step

  built = _create(1, train__batch_size=12)
  call = step.make_train_call(built.trainer, built.pipeline, 1)
  inputs = built.pipeline.input_shapes(1)
  compiled = call.lower(built.initial_state(), inputs).compile()
  sizes = compiled.memory_analysis()
  there = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes
  ratio = memory.memory(built).total / there
  assert 0.4 < ratio < 2, ratio


def test_memory_of_a_device():
  devices = jax.devices()
  whole = memory.device_memory(devices[:1])
  assert whole > 2**28
  assert memory.device_memory(devices[:4]) == whole // 4

  class Other:
    platform = "tpu"

    def __init__(self, stats):
      self.memory_stats = lambda: stats

  assert memory.device_memory([Other({"bytes_limit": 7})]) == 7
  assert memory.device_memory([Other(None)]) is None


def test_memory_that_a_container_is_granted(tmp_path, monkeypatch):
  membership = tmp_path / "cgroup"
  groups = tmp_path / "groups"
  (groups / "a" / "b").mkdir(parents=True)
  (groups / "a" / "memory.max").write_text("5000\n")
  (groups / "a" / "b" / "memory.max").write_text("max\n")
  membership.write_text("4:memory:/c\n0::/a/b\n")

  def granted():
    return list(memory._group_limits(str(membership), str(groups)))

  # The root has no limit of its own on a machine, but in a container.
  assert granted() == [5000]
  (groups / "memory.max").write_text("4000\n")
  assert granted() == [5000, 4000]
  membership.unlink()
  assert granted() == []
  monkeypatch.setattr(memory, "_group_limits", lambda: iter([8000, 10**18]))
  assert memory.device_memory(jax.devices()[:4]) == 2000


@pytest.mark.parametrize(("steps_per_call", "batches"), [(1, 4), (4, 11)])
def test_batches_on_the_devices(steps_per_call, batches):
  # Of two calls, two that wait, and of several in a call a copy.
  assert memory.host_batches(steps_per_call) == batches
