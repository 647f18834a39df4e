"""Orders of epochs on the devices, each computed only once."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax.data import sampling
from paws_jax.parallel import mesh as mesh_lib


class EpochOrders:
  """A cache of the orders of recent epochs."""

  def __init__(self, order: Callable[..., jax.Array]):
    self._order = order
    self._kept: dict[int, jax.Array] = {}

  def stack(self, first: int, count: int) -> jax.Array:
    """Returns the orders of `count` epochs from the first on, [count, n]."""
    self._kept = {
      epoch: self._kept[epoch]
      if epoch in self._kept
      else self._order(epoch=epoch)
      for epoch in range(first, first + count)
    }
    return jnp.stack(list(self._kept.values()))


class LabelledStream:
  """The shuffled stream of labelled images, on the devices."""

  def __init__(
    self,
    index: sampling.LabelIndex,
    *,
    batch_size: int,
    seed: int,
    mesh: jax.sharding.Mesh,
  ):
    ids, labels = sampling.labelled_images(index)
    self._sizes = {"num_images": len(ids), "batch_size": batch_size}
    self._mesh = mesh
    self._ids, self._labels = mesh_lib.replicate((ids, labels), mesh)

    def order(epoch: jax.Array) -> jax.Array:
      return sampling.labelled_order(len(ids), seed=seed, epoch=epoch)

    self._orders = EpochOrders(
      jax.jit(order, out_shardings=mesh_lib.replicated(mesh))
    )

  def stream(self, first_step: int, num_steps: int) -> sampling.LabelledStream:
    """Returns the inputs of `batch` for steps from the first on."""
    epoch, place = sampling.uniform_start(first_step, **self._sizes)
    count = sampling.num_orders(num_steps, **self._sizes)
    starts = mesh_lib.replicate(
      (np.int32(first_step), np.int32(place)), self._mesh
    )
    return sampling.LabelledStream(
      ids=self._ids,
      labels=self._labels,
      orders=self._orders.stack(epoch, count),
      first_step=starts[0],
      first_place=starts[1],
    )

  def shapes(self, num_steps: int) -> sampling.LabelledStream:
    """Returns shapes and dtypes of `stream`."""
    count = sampling.num_orders(num_steps, **self._sizes)
    rows = self._ids.shape
    return sampling.LabelledStream(
      *(
        jax.ShapeDtypeStruct(shape, np.int32)
        for shape in (rows, rows, (count, *rows), (), ())
      )
    )
