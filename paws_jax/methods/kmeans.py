"""k-means on a table of embeddings that is spread over the devices.

Rows stay where they are; centroids are on all devices, which add up sums and
sizes of clusters once an update.
"""

from __future__ import annotations

import functools
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from paws_jax.losses import similarity
from paws_jax.parallel import mesh as mesh_lib

# Rows whose distances to all centroids are in memory at a time.
_CHUNK = 1024
# Relative distance between the two halves of a cluster that is split.
_SPLIT = 1 / 1024
NONE = -1
# Nearest centroids, sums and sizes; or a cluster, means and sizes.
_Carry = tuple[jax.Array, jax.Array, jax.Array]


class Clusters(NamedTuple):
  """The result of k-means."""

  # [n] int32, cluster of each row; -1 for rows that do not count.
  assigned: jax.Array
  # [K, D].
  centroids: jax.Array


def cluster_table(
  table: jax.Array,
  known: jax.Array,
  key: jax.Array,
  *,
  num_clusters: int,
  num_iterations: int,
) -> jax.Array:
  """Clusters the rows of a table, from random rows as first centroids.

  Args:
    table: [n, D], or padded at the end; a global array, spread by `mesh.BATCH`
      or on one device.
    known: [n] bool, rows that count, as the table.
    key: of the draw of the first centroids.
    num_clusters: K, at most n.
    num_iterations: updates of the centroids.

  Returns:
    [padded n] int32, the nearest of the last centroids; -1 where not `known`.
  """
  sharding = table.sharding
  mesh = sharding.mesh if isinstance(sharding, NamedSharding) else None
  call = _compiled(mesh, num_clusters, num_iterations)
  return call(table, known, key)


@functools.cache
def _compiled(
  mesh: jax.sharding.Mesh | None, num_clusters: int, num_iterations: int
) -> Any:
  """Compiles k-means once for all epochs."""
  axis_name = None if mesh is None else mesh_lib.AXES

  def local(table: jax.Array, known: jax.Array, key: jax.Array) -> jax.Array:
    first = first_centroids(table, known, key, num_clusters, axis_name)
    found = kmeans(
      table, known, first, num_iterations=num_iterations, axis_name=axis_name
    )
    return found.assigned

  if mesh is None:
    return jax.jit(local)
  return jax.jit(
    mesh_lib.shard_map(
      local,
      mesh,
      in_specs=(mesh_lib.BATCH, mesh_lib.BATCH, mesh_lib.REPLICATED),
      out_specs=mesh_lib.BATCH,
    )
  )


def first_centroids(
  table: jax.Array,
  known: jax.Array,
  key: jax.Array,
  num_clusters: int,
  axis_name: Any,
) -> jax.Array:
  """Draws different rows that count; others only where those are too few."""
  if axis_name is not None:
    known = jax.lax.all_gather(known, axis_name, tiled=True)
  # Of each row alone: padding that depends on the devices draws nothing.
  rows = jnp.arange(known.shape[0])
  draws = jax.vmap(lambda row: jax.random.bits(jax.random.fold_in(key, row)))
  _, _, order = jax.lax.sort((~known, draws(rows), rows), num_keys=2)
  places = order[:num_clusters]
  if axis_name is None:
    return table[places]
  places -= jax.lax.axis_index(axis_name) * table.shape[0]
  own = (places >= 0) & (places < table.shape[0])
  centroids = jnp.where(own[:, None], table[jnp.where(own, places, 0)], 0)
  return jax.lax.psum(centroids, axis_name)


def kmeans(
  table: jax.Array,
  known: jax.Array,
  centroids: jax.Array,
  *,
  num_iterations: int,
  axis_name: Any = None,
) -> Clusters:
  """Moves centroids to the means of their rows, and assigns rows at the end.

  An empty cluster and the largest one (the lowest of equals) become the halves
  of that one: its mean times 1 + 1/1024 and 1 - 1/1024 in even dimensions, the
  other way round in odd ones. Empty clusters are served in their order.

  Args:
    table: [n, D], this device's rows.
    known: [n] bool, rows that count.
    centroids: [K, D], the first ones, equal on all devices.
    num_iterations: updates.
    axis_name: mesh axes over which rows are spread.
  """

  def update(unused_step: int, centroids: jax.Array) -> jax.Array:
    _, sums, sizes = _assign(table, known, centroids)
    if axis_name is not None:
      sums, sizes = jax.lax.psum((sums, sizes), axis_name)
    means = sums / jnp.maximum(sizes, 1)[:, None].astype(sums.dtype)
    return _fill_empty(means, sizes)

  centroids = jax.lax.fori_loop(0, num_iterations, update, centroids)
  assigned, _, _ = _assign(table, known, centroids)
  return Clusters(assigned, centroids)


def _assign(table: jax.Array, known: jax.Array, centroids: jax.Array) -> _Carry:
  """Finds the nearest centroid of each row, and adds up the rows of each.

  Returns:
    [n] int32, [K, D] and [K] int32, of this device.
  """
  num_rows, num_clusters = table.shape[0], centroids.shape[0]
  chunk = min(_CHUNK, num_rows)
  norms = jnp.sum(centroids**2, axis=-1)

  def body(carry: _Carry, number: jax.Array) -> tuple[_Carry, None]:
    assigned, sums, sizes = carry
    # The last chunk begins earlier, with rows that have been counted.
    first = jnp.minimum(number * chunk, num_rows - chunk)
    rows = jax.lax.dynamic_slice_in_dim(table, first, chunk)
    counts = jax.lax.dynamic_slice_in_dim(known, first, chunk)
    products = similarity.dot_products(rows, centroids)
    nearest = jnp.argmin(norms[None, :] - 2 * products, axis=-1).astype(
      jnp.int32
    )
    nearest = jnp.where(counts, nearest, NONE)
    new = counts & (first + jnp.arange(chunk) >= number * chunk)
    # Out of range, and dropped, where a row does not count.
    places = jnp.where(new, nearest, num_clusters)
    return (
      jax.lax.dynamic_update_slice_in_dim(assigned, nearest, first, axis=0),
      sums.at[places].add(rows, mode="drop"),
      sizes.at[places].add(1, mode="drop"),
    ), None

  # Of the kind of `table` where devices differ.
  zero = jnp.sum(table[:1]) * 0
  start = (
    jnp.full(num_rows, NONE, jnp.int32) + zero.astype(jnp.int32),
    jnp.zeros_like(centroids) + zero,
    jnp.zeros(num_clusters, jnp.int32) + zero.astype(jnp.int32),
  )
  numbers = jnp.arange(-(-num_rows // chunk))
  carry, _ = jax.lax.scan(body, start, numbers)
  return carry


def _fill_empty(means: jax.Array, sizes: jax.Array) -> jax.Array:
  """Splits the largest clusters for those that are empty."""
  num_clusters, width = means.shape
  signs = jnp.where(jnp.arange(width) % 2 == 0, 1, -1).astype(means.dtype)
  factors = 1 + _SPLIT * signs, 1 - _SPLIT * signs
  ids = jnp.arange(num_clusters)

  def next_empty(last: jax.Array) -> jax.Array:
    """The lowest empty cluster above `last`; num_clusters: none."""
    empty = (sizes == 0) & (ids > last)
    return jnp.min(jnp.where(empty, ids, num_clusters))

  def split(state: _Carry) -> _Carry:
    cluster, means, left = state
    largest = jnp.argmax(left)
    mean, half = means[largest], left[largest] // 2
    means = means.at[cluster].set(mean * factors[0])
    means = means.at[largest].set(mean * factors[1])
    left = left.at[largest].add(-half).at[cluster].set(half)
    return next_empty(cluster), means, left

  first = next_empty(jnp.asarray(-1))
  _, means, _ = jax.lax.while_loop(
    lambda state: state[0] < num_clusters, split, (first, means, sizes)
  )
  return means
