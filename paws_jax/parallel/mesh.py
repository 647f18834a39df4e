"""The device mesh, and the only place that names its axes.

Batches are sharded over all devices along their first axis; parameters and
optimizer state are replicated. The mesh has two axes so that BatchNorm can
share its statistics within groups of devices: `group` counts the groups,
`data` the devices of a group. Everything except BatchNorm uses both, as `AXES`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from paws_jax import errors

GROUP_AXIS = "group"
DATA_AXIS = "data"
AXES = (GROUP_AXIS, DATA_AXIS)

REPLICATED = P()
BATCH = P(AXES)


def make_mesh(
  devices: Sequence[jax.Device] | None = None,
  *,
  bn_group_size: int = 0,
  bn_groups: int = 1,
) -> jax.sharding.Mesh:
  """Arranges devices as [BatchNorm groups, devices of a group].

  Args:
    devices: by default all devices of all processes, in the order of JAX.
    bn_group_size: number of devices that share BatchNorm statistics; 0: all.
    bn_groups: number of groups instead; 1: `bn_group_size` decides.

  Raises:
    InputError: the groups do not divide the devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  bn_group_size, _ = _bn_layout(bn_group_size, bn_groups, len(devices))
  group_size = bn_group_size or len(devices)
  if group_size < 0 or len(devices) % group_size:
    raise errors.InputError(
      f"train.bn_group_size is {group_size}, which does not divide the "
      f"{len(devices)} devices: choose a divisor, or 0 for one group."
    )
  grid = np.asarray(devices).reshape(-1, group_size)
  # Explicit axes, the default of jax.make_mesh, refuse `q @ s.T`.
  types = (jax.sharding.AxisType.Auto,) * 2
  return jax.sharding.Mesh(grid, AXES, axis_types=types)


def batch_norm_axes(
  bn_group_size: int,
  *,
  bn_groups: int = 1,
  num_devices: int | None = None,
  chunks: int = 1,
) -> dict[str, Any]:
  """Returns the axes over which BatchNorm shares statistics and of the groups.

  Args:
    bn_group_size: as for `make_mesh`.
    bn_groups: as for `make_mesh`.
    num_devices: of the mesh; None: all.
    chunks: in which a device encodes its rows; groups of a device are divided
      among them.

  Returns:
    Keyword arguments of `models.create`.

  Raises:
    InputError: groups and devices do not divide each other, or chunks do not
      divide the groups of a device.
  """
  group_size, num_groups = _bn_layout(
    bn_group_size, bn_groups, num_devices or jax.device_count()
  )
  if group_size == 0:
    return {"axis_name": AXES, "group_axis_name": None}
  axes = {"axis_name": DATA_AXIS, "group_axis_name": GROUP_AXIS}
  if bn_groups > 1:
    if num_groups % chunks:
      raise errors.InputError(
        f"train.bn_groups is {bn_groups} and train.chunks is {chunks}, each of "
        "which has BatchNorm statistics of its own: on "
        f"{num_devices or jax.device_count()} devices the number of groups "
        "must be a multiple of devices times chunks. Change one of them, or "
        "set bn_groups to 1: then every chunk is a group."
      )
    num_groups //= chunks
  return axes | ({"num_groups": num_groups} if num_groups > 1 else {})


def _bn_layout(
  bn_group_size: int, bn_groups: int, num_devices: int
) -> tuple[int, int]:
  """Returns devices of a BatchNorm group (0: all), and groups of a device."""
  if bn_groups == 1:
    return bn_group_size, 1
  if bn_groups % num_devices == 0:
    return 1, bn_groups // num_devices
  if num_devices % bn_groups == 0:
    return num_devices // bn_groups, 1
  raise errors.InputError(
    f"train.bn_groups is {bn_groups} on {num_devices} devices: one of the "
    "numbers must divide the other."
  )


def spread(axis: int) -> P:
  """Spec of an array of which one axis is divided among all devices."""
  return P(*[None] * axis, AXES)


def replicated(mesh: jax.sharding.Mesh) -> NamedSharding:
  """Sharding of an array that every device holds entirely."""
  return NamedSharding(mesh, REPLICATED)


def batch_sharded(
  mesh: jax.sharding.Mesh, *, memory: str | None = None
) -> NamedSharding:
  """Sharding of an array whose first axis is divided among all devices.

  Args:
    mesh: the devices.
    memory: kind of memory, as JAX calls it; None: the devices' own.
  """
  return NamedSharding(mesh, BATCH, memory_kind=memory)


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Copies a pytree of host arrays to every device of the mesh.

  All processes pass the same values. `jax.device_put` would compare them, for
  which the processes wait for each other.
  """
  everywhere = replicated(mesh)

  def put(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jax.make_array_from_callback(
      array.shape, everywhere, array.__getitem__
    )

  return jax.tree.map(put, tree)


def place(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Replicates a pytree, unless it is an array that every device holds."""
  if isinstance(tree, jax.Array) and tree.sharding == replicated(mesh):
    return tree
  return replicate(tree, mesh)


def everywhere(array: jax.Array) -> jax.Array:
  """Copies an array that is spread over a mesh to all of its devices."""
  sharding = array.sharding
  if not isinstance(sharding, NamedSharding):
    return array
  mesh = sharding.mesh
  assert isinstance(mesh, jax.sharding.Mesh)
  return jax.jit(jnp.copy, out_shardings=replicated(mesh))(array)


def on_cpu(mesh: jax.sharding.Mesh) -> bool:
  """Whether the devices, which are of one kind, are those of CPUs."""
  return mesh.devices.flat[0].platform == "cpu"


def local_devices(mesh: jax.sharding.Mesh) -> list[jax.Device]:
  """Returns this process's devices in the mesh, ordered by id."""
  mine = replicated(mesh).addressable_devices
  return sorted(mine, key=lambda device: device.id)


def local_rows(
  num_rows: int, mesh: jax.sharding.Mesh, devices: Sequence[jax.Device]
) -> np.ndarray:
  """Returns the rows that these devices hold, in the order of the devices.

  They are read from the sharding: on some machines the rows of a process are
  not contiguous.

  Args:
    num_rows: number of rows in total.
    mesh: all devices.
    devices: some of them.

  Returns:
    int [m], numbers of rows.
  """
  places = batch_sharded(mesh).devices_indices_map((num_rows,))
  rows = [np.arange(num_rows)[places[device]] for device in devices]
  return np.concatenate(rows)


def from_local_rows(
  rows: np.ndarray, mesh: jax.sharding.Mesh, *, memory: str | None = None
) -> jax.Array:
  """Makes a global array, sharded over the mesh, from this process's rows.

  Args:
    rows: [m, ...], in the order of `local_rows(..., local_devices(mesh))`.
    mesh: all devices.
    memory: as of `batch_sharded`.
  """
  devices = local_devices(mesh)
  shards = [
    jax.device_put(
      part, jax.sharding.SingleDeviceSharding(device, memory_kind=memory)
    )
    for part, device in zip(np.split(rows, len(devices)), devices, strict=True)
  ]
  num_rows = len(shards[0]) * mesh.size
  return jax.make_array_from_single_device_arrays(
    (num_rows, *rows.shape[1:]), batch_sharded(mesh, memory=memory), shards
  )


def constrain(tree: Any, sharding: NamedSharding) -> Any:
  """Constrains the sharding of the arrays of a pytree."""
  return jax.tree.map(
    lambda x: jax.lax.with_sharding_constraint(x, sharding), tree
  )


def varying(tree: Any) -> Any:
  """Marks replicated arrays inside `shard_map` as different on each device.

  Gradients with respect to them are then added up on each device, and once over
  the devices, in the dtype of the arrays. Otherwise an array that is cast and
  used in several places needs a sum over the devices for each use, in the dtype
  of the cast.
  """
  return jax.tree.map(lambda x: jax.lax.pcast(x, AXES, to="varying"), tree)


def padded_size(num_rows: int, mesh: jax.sharding.Mesh, chunks: int = 1) -> int:
  """Rounds `num_rows` up to a multiple of the devices, times their chunks."""
  multiple = mesh.size * chunks
  return -(-num_rows // multiple) * multiple


def shard_map(
  function: Callable[..., Any],
  mesh: jax.sharding.Mesh,
  *,
  in_specs: Any,
  out_specs: Any,
) -> Callable[..., Any]:
  """`jax.shard_map` with replication checked.

  The check (`check_vma`) also makes gradients taken outside correct: it inserts
  the sum over devices where a replicated argument is used locally.
  """
  return jax.shard_map(
    function,
    mesh=mesh,
    in_specs=in_specs,
    out_specs=out_specs,
    check_vma=True,
  )
