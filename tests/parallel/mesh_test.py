"""The mesh and its few helpers."""

import collections
import os
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.data import sampling
from paws_jax.data.host import row_plan
from paws_jax.parallel import cpu_devices
from paws_jax.parallel import mesh as mesh_lib


def test_the_mesh_has_groups_of_devices_in_order():
  mesh = mesh_lib.make_mesh(bn_group_size=4)
  assert mesh.shape == {"group": 2, "data": 4}
  assert mesh.axis_names == mesh_lib.AXES
  assert list(mesh.devices.ravel()) == jax.devices()
  assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}
  assert mesh_lib.make_mesh().shape == {"group": 1, "data": 8}


@pytest.mark.parametrize("size", [3, 16])
def test_devices_that_do_not_divide_into_the_groups_are_refused(size):
  with pytest.raises(
    ValueError, match=f"bn_group_size is {size}, .* the 8 devices"
  ):
    mesh_lib.make_mesh(bn_group_size=size)


def test_batch_norm_shares_within_a_group():
  assert mesh_lib.batch_norm_axes(0) == {
    "axis_name": ("group", "data"),
    "group_axis_name": None,
  }
  assert mesh_lib.batch_norm_axes(2) == {
    "axis_name": "data",
    "group_axis_name": "group",
  }


@pytest.mark.parametrize(
  ("bn_groups", "num_devices", "shape", "num_groups"),
  [(8, 1, (1, 1), 8), (8, 4, (4, 1), 2), (4, 4, (4, 1), 1), (2, 8, (2, 4), 1)],
)
def test_a_number_of_groups_is_placed_on_any_devices(
  bn_groups, num_devices, shape, num_groups
):
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices], bn_groups=bn_groups)
  assert mesh.devices.shape == shape
  axes = mesh_lib.batch_norm_axes(
    0, bn_groups=bn_groups, num_devices=num_devices
  )
  assert axes.get("num_groups", 1) == num_groups
  assert axes["group_axis_name"] == "group"


def test_groups_and_devices_that_do_not_divide_each_other_are_refused():
  with pytest.raises(errors.InputError, match=r"bn_groups is 3 on 2 devices"):
    mesh_lib.make_mesh(jax.devices()[:2], bn_groups=3)


def test_rows_of_a_process_come_back_as_one_array():
  mesh = mesh_lib.make_mesh(bn_group_size=4)
  rows = mesh_lib.local_rows(16, mesh, mesh_lib.local_devices(mesh))
  assert sorted(rows) == list(range(16))
  images = np.arange(32).reshape(16, 2)
  spread = mesh_lib.from_local_rows(images[rows], mesh)
  assert spread.sharding == mesh_lib.batch_sharded(mesh)
  np.testing.assert_array_equal(spread, images)
  # Devices in another order hold other rows.
  turned = mesh_lib.make_mesh(jax.devices()[::-1])
  rows = mesh_lib.local_rows(16, turned, mesh_lib.local_devices(turned))
  assert rows[:4].tolist() == [14, 15, 12, 13]
  spread = mesh_lib.from_local_rows(images[rows], turned)
  np.testing.assert_array_equal(spread, images)


@pytest.fixture
def asked(monkeypatch):
  """What JAX, not yet started, is asked for."""
  asked = {}
  config = types.SimpleNamespace(
    jax_num_cpu_devices=-1, update=asked.__setitem__
  )
  monkeypatch.setattr(cpu_devices, "jax", types.SimpleNamespace(config=config))
  return asked


@pytest.mark.parametrize(
  ("cores", "batch_size", "expected"),
  [(1, 128, 1), (2, 128, 2), (6, 128, 4), (3, 96, 3), (64, 128, 8), (2, 7, 1)],
)
def test_every_core_of_a_cpu_is_a_device(
  asked, monkeypatch, cores, batch_size, expected
):
  monkeypatch.setattr(
    os, "sched_getaffinity", lambda _: set(range(cores)), raising=False
  )
  monkeypatch.setenv("XLA_FLAGS", "--other")
  assert cpu_devices.use_cpu_cores(batch_size) == expected
  assert asked == {"jax_num_cpu_devices": expected}
  # One thread each; once, and not for a single device.
  cpu_devices.use_cpu_cores(batch_size)
  one_thread = " --xla_cpu_multi_thread_eigen=false"
  assert os.environ["XLA_FLAGS"] == "--other" + one_thread * (expected > 1)
  monkeypatch.delattr(os, "sched_getaffinity")
  monkeypatch.setattr(os, "cpu_count", lambda: cores)
  assert cpu_devices.use_cpu_cores(batch_size) == expected


def test_a_number_of_cpu_devices_given_to_jax_is_kept(asked, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
  assert cpu_devices.use_cpu_cores(128) is None
  assert os.environ["XLA_FLAGS"].endswith(
    "=2 --xla_cpu_multi_thread_eigen=false"
  )
  for given, added in ((1, ""), (4, " --xla_cpu_multi_thread_eigen=false")):
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(cpu_devices.jax.config, "jax_num_cpu_devices", given)
    assert cpu_devices.use_cpu_cores(128) is None
    assert os.environ["XLA_FLAGS"] == added
  assert asked == {}


@pytest.mark.parametrize(
  ("num_rows", "num_devices", "padded"),
  [(10, 1, 10), (10, 2, 10), (10, 4, 12), (10, 8, 16), (16, 8, 16), (1, 8, 8)],
)
def test_padded_size_is_the_next_multiple(num_rows, num_devices, padded):
  mesh = mesh_lib.make_mesh(jax.devices()[:num_devices])
  assert mesh_lib.padded_size(num_rows, mesh) == padded


def test_replicate_puts_everything_on_every_device():
  mesh = mesh_lib.make_mesh(jax.devices()[:4])
  tree = mesh_lib.replicate({"a": np.arange(3), "b": np.float32(2)}, mesh)
  for leaf in jax.tree.leaves(tree):
    assert leaf.sharding.is_fully_replicated
    assert len(leaf.sharding.device_set) == 4


@pytest.mark.parametrize("group_size", [0, 2])
def test_rows_are_spread_in_the_order_of_the_devices(group_size):
  mesh = mesh_lib.make_mesh(jax.devices()[:4], bn_group_size=group_size)
  array = jax.device_put(jnp.arange(8), mesh_lib.batch_sharded(mesh))
  for i, shard in enumerate(array.addressable_shards):
    assert shard.device == jax.devices()[i]
    np.testing.assert_array_equal(shard.data, [2 * i, 2 * i + 1])


@pytest.mark.parametrize("group_size", [0, 2])
def test_a_gradient_outside_shard_map_is_that_of_the_global_mean(group_size):
  mesh = mesh_lib.make_mesh(jax.devices()[:4], bn_group_size=group_size)
  x = np.linspace(-1, 2, 12, dtype=np.float32).reshape(4, 3)

  def local(w, x):
    return jax.lax.pmean(jnp.mean(jnp.tanh(x @ w)), mesh_lib.AXES)

  loss = mesh_lib.shard_map(
    local,
    mesh,
    in_specs=(mesh_lib.REPLICATED, mesh_lib.BATCH),
    out_specs=mesh_lib.REPLICATED,
  )
  w = jnp.array([0.3, -0.2, 0.5])
  expected = jax.grad(lambda w: jnp.mean(jnp.tanh(x @ w)))(w)
  np.testing.assert_allclose(jax.grad(loss)(w, x), expected, rtol=1e-6)


def test_shard_map_refuses_a_value_that_differs_between_devices():
  mesh = mesh_lib.make_mesh(jax.devices()[:4])
  spread = mesh_lib.shard_map(
    jnp.sum, mesh, in_specs=mesh_lib.BATCH, out_specs=mesh_lib.REPLICATED
  )
  with pytest.raises(ValueError, match="out_specs"):
    jax.eval_shape(spread, jnp.ones((4,)))


def test_labels_of_a_batch_are_whole_and_all_else_is_spread():
  views = data.Views(
    crops={"large": 0},
    ids=0,
    support=0,
    support_ids=0,
    support_mask=None,
    support_labels=0,
    class_ids=0,
  )
  specs = data.batch_specs(views)
  assert specs.support_mask is None
  for name in ("support_labels", "class_ids"):
    assert getattr(specs, name) == mesh_lib.REPLICATED
  assert specs.crops == {"large": mesh_lib.BATCH}
  for name in ("ids", "support", "support_ids"):
    assert getattr(specs, name) == mesh_lib.BATCH


def test_a_batch_without_labelled_images_has_specs():
  views = data.Views(crops={"large": 0}, ids=0)
  specs = data.batch_specs(views)
  assert jax.tree.leaves(specs) == [mesh_lib.BATCH, mesh_lib.BATCH]
  assert specs.support_labels is None
  assert specs.class_ids is None


def _row_plan(mesh):
  """Batches of 96 of 400 images, with 35 supports."""
  labels = np.arange(400, dtype=np.int32) % 10
  index = sampling.label_index(
    np.arange(100), labels, class_names=tuple("abcdefghij")
  )
  support = dict.fromkeys(config_lib.Support.__dataclass_fields__, 1)
  return row_plan.RowPlan(
    index,
    num_images=400,
    pool=np.arange(400, dtype=np.int32),
    support=config_lib.Support(
      **support | {"classes_per_step": 5, "images_per_class": 7}
    ),
    batch_size=96,
    seed=3,
    mesh=mesh,
  )


def _placed(rows, mesh):
  """Rows as the hosts of the devices read them, where the devices have them."""
  hosts = collections.defaultdict(list)
  for device in sorted(mesh.devices.flat, key=lambda device: device.id):
    hosts[device.process_index].append(device)
  assert len(hosts) > 1
  places = mesh_lib.batch_sharded(mesh).devices_indices_map(rows.shape)
  placed = np.full_like(rows, -1)
  for own in hosts.values():
    read = rows[mesh_lib.local_rows(len(rows), mesh, own)]
    assert len(read) == len(rows) // len(hosts)
    for device, part in zip(own, np.split(read, len(own)), strict=True):
      assert (placed[places[device]] == -1).all()
      placed[places[device]] = part
  return placed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5e:4x4", "v4:2x2x4"])
@pytest.mark.parametrize("by_place", [False, True])
def test_hosts_of_a_tpu_make_the_batch_of_one_device(name, by_place):
  pytest.importorskip("libtpu")
  from jax.experimental import topologies

  devices = topologies.get_topology_desc(
    platform="tpu", topology_name=name
  ).devices
  if by_place:
    # A host has a square of the chips: rows that do not follow each other.
    devices = sorted(devices, key=lambda d: (tuple(d.coords), d.id))
  mesh = mesh_lib.make_mesh(devices)
  hosts = _row_plan(mesh)
  one = _row_plan(mesh_lib.make_mesh(jax.devices()[:1]))
  # The second epoch begins with step 4.
  for step in (0, 1, 5):
    expected = one.supports(step)
    unlabelled = _placed(hosts.unlabelled(step), mesh)
    np.testing.assert_array_equal(unlabelled, one.unlabelled(step))
    supports = hosts.supports(step)
    for field in ("ids", "slots"):
      padded = _placed(getattr(supports, field), mesh)
      np.testing.assert_array_equal(padded[:35], getattr(expected, field))
    mask = _placed(supports.mask.astype(np.int32), mesh)
    assert mask.tolist() == [1] * 35 + [0] * (len(mask) - 35)
    np.testing.assert_array_equal(supports.labels, expected.labels)
    np.testing.assert_array_equal(supports.class_ids, expected.class_ids)


def test_linear_algebra_keeps_to_one_thread():
  script = (
    "from paws_jax.parallel import cpu_devices; cpu_devices.use_cpu_cores(2); "
    "import threadpoolctl; print(sorted({library['num_threads'] "
    "for library in threadpoolctl.threadpool_info() "
    "if library['user_api'] == 'blas'}))"
  )
  result = subprocess.run(
    [sys.executable, "-c", script], capture_output=True, text=True, check=True
  )
  assert result.stdout == "[1]\n"
