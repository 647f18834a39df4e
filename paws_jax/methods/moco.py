"""MoCo v2: an image is found by its key among those of earlier steps (2020)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import data
from paws_jax import losses
from paws_jax.methods import base
from paws_jax.methods import collapse
from paws_jax.methods import encoding
from paws_jax.methods import tables
from paws_jax.methods import target_network
from paws_jax.parallel import mesh


@dataclasses.dataclass(frozen=True)
class Moco(target_network.WithTarget):
  """One view is the query; the target network's key of the other is its match.

  With `train.bn_groups` the keys are computed in another order than the
  queries, so that statistics of a group do not tell which key belongs to a
  query ("shuffling BN").
  """

  shown_losses = ("info_nce",)

  def init_extra(
    self, key: jax.Array, params: Any, batch_stats: Any, facts: base.Facts
  ) -> dict[str, Any]:
    """Copies the network, and fills the queue with random directions."""
    width = self.encoder.projection.output_dim
    dtype = jax.tree.leaves(params)[0].dtype
    queue = jax.random.normal(key, (self.config.queue_size, width), dtype)
    return {
      **super().init_extra(key, params, batch_stats, facts),
      "queue": losses.normalize(queue),
      "position": jnp.zeros((), jnp.int32),
    }

  @property
  def extra_specs(self) -> Any:
    """Replication of all: every key enters the loss of every query."""
    return mesh.REPLICATED

  def loss(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    batch: data.Views,
    *,
    step: jax.Array,
    key: jax.Array | None,
  ) -> base.Output:
    """Computes the contrast of queries, keys and queue."""
    del step
    queries, keys = encoding.pair_of_views(batch)
    _, queries, batch_stats = self.encode_online(params, batch_stats, queries)
    order = self._shuffled_order(key, keys.shape[0])
    keys = _in_order(keys, order, self.axis_name)
    keys, batch_stats = self.encode_target(extra, batch_stats, keys)
    inverse = None if order is None else jnp.argsort(order)
    keys = _in_order(losses.normalize(keys), inverse, self.axis_name)
    loss = losses.moco_loss(
      queries, keys, extra["queue"], temperature=self.config.temperature
    )
    means = {"info_nce": loss}
    if self.config.health_metrics:
      means |= collapse.metrics(queries, self.axis_name)
    means = encoding.device_means(means, self.axis_name)
    loss = means["info_nce"]
    return base.Output(loss, {"loss": loss} | means, batch_stats, rows=keys)

  def after_update(
    self,
    params: Any,
    batch_stats: Any,
    extra: Any,
    rows: Any,
    *,
    step: jax.Array,
    finite: jax.Array,
  ) -> tuple[Any, Any]:
    """Moves the average, and writes this step's keys into the queue."""
    params, extra = super().after_update(
      params, batch_stats, extra, rows, step=step, finite=finite
    )
    queue, position = tables.enqueue(
      extra["queue"], extra["position"], rows, finite=finite
    )
    return params, {**extra, "queue": queue, "position": position}

  def _shuffled_order(
    self, key: jax.Array | None, num_local: int
  ) -> jax.Array | None:
    """Draws the order in which keys are computed; None: that of the batch.

    Without groups of BatchNorm, and without chunks, which are groups,
    statistics do not depend on the order.
    """
    grouped = self.encoder.projection.settings.group_axis_name is not None
    if not grouped and self.encoder.chunking is None:
      return None
    assert key is not None
    size = 1 if self.axis_name is None else jax.lax.axis_size(self.axis_name)
    return jax.random.permutation(key, num_local * size)


def _in_order(
  rows: jax.Array, order: jax.Array | None, axis_name: Any
) -> jax.Array:
  """Returns this device's part of the rows of all devices in another order.

  Args:
    rows: [n, ...] of this device.
    order: [devices · n], place in the batch of each row; None: as they are.
    axis_name: mesh axes, or None outside `shard_map`.
  """
  if order is None:
    return rows
  num_local = rows.shape[0]
  if axis_name is None:
    return jax.tree.map(lambda x: x[order], rows)
  own = jax.lax.axis_index(axis_name) * num_local
  order = jax.lax.dynamic_slice_in_dim(order, own, num_local)
  return jax.tree.map(
    lambda x: jax.lax.all_gather(x, axis_name, tiled=True)[order], rows
  )
