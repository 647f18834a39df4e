"""Updates of averages, queues and tables that non-finite steps leave alone.

For `Method.after_update`: every function takes `finite`, and writes nothing
where it is False. Tables are updated in place by a scatter, whose rows then lie
outside of the table; a selection would copy the table at every step.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from paws_jax import errors


def ema(
  average: Any, new: Any, *, momentum: jax.Array | float, finite: jax.Array
) -> Any:
  """Moves an exponential moving average towards new values.

  Args:
    average: pytree of arrays.
    new: the same tree, after the update.
    momentum: weight of the old value, in [0, 1].
    finite: bool scalar.

  Returns:
    momentum * average + (1 - momentum) * new; `average` to the last bit where
    the two are equal, as in a trunk that is frozen.
  """

  def move(old: jax.Array, value: jax.Array) -> jax.Array:
    moved = momentum * old + (1 - momentum) * value
    return jnp.where(finite & (old != value), moved.astype(old.dtype), old)

  return jax.tree.map(move, average, new)


def read_rows(
  table: jax.Array, places: jax.Array, *, axis_name: Any = None
) -> jax.Array:
  """Reads rows of a table that `mesh.BATCH` spreads; inside `shard_map`.

  Args:
    table: [n, ...], this device's rows.
    places: int [m], rows in the entire table that this device wants.
    axis_name: mesh axes, or None outside `shard_map`.

  Returns:
    [m, ...].
  """
  if axis_name is None:
    return table[places]
  places = jax.lax.all_gather(places, axis_name, tiled=True)
  places -= jax.lax.axis_index(axis_name) * table.shape[0]
  own = (places >= 0) & (places < table.shape[0])
  rows = table[jnp.where(own, places, 0)]
  summed = rows.astype(jnp.int32) if rows.dtype == bool else rows
  own = own.reshape(-1, *[1] * (rows.ndim - 1))
  summed = jax.lax.psum_scatter(
    jnp.where(own, summed, 0), axis_name, tiled=True
  )
  return summed.astype(rows.dtype)


def write_rows(
  table: jax.Array,
  places: jax.Array,
  rows: jax.Array,
  *,
  finite: jax.Array,
  num_rows: int | None = None,
) -> jax.Array:
  """Replaces rows of a table.

  Args:
    table: [n, ...], or padded at the end.
    places: int [m], distinct; rows outside of [0, n) are dropped.
    rows: [m, ...].
    finite: bool scalar.
    num_rows: n; needed where the table is spread over devices, which may have
      padded it, and places may lie beyond it.

  Returns:
    The table, in the memory of the old table if that is donated.
  """
  inside = (places >= 0) & (places < (num_rows or table.shape[0]))
  places = jnp.where(finite & inside, places, table.shape[0])
  return table.at[places].set(rows.astype(table.dtype), mode="drop")


def enqueue(
  queue: jax.Array,
  position: jax.Array,
  rows: jax.Array,
  *,
  finite: jax.Array,
  num_rows: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Writes rows over the oldest ones of a ring buffer.

  Args:
    queue: [n, ...], or padded at the end.
    position: int32 scalar, place of the next row.
    rows: [m, ...], m <= n.
    finite: bool scalar.
    num_rows: n; needed where the queue is spread over devices, which may have
      padded it.

  Returns:
    The queue, and the position after the last row.

  Raises:
    errors.InputError: when there are more rows than places.
  """
  size, count = num_rows or queue.shape[0], rows.shape[0]
  if count > size:
    raise errors.InputError(
      f"{count} rows do not fit into a queue of {size}: make the queue at "
      "least as long as the batch."
    )
  places = (position + jnp.arange(count)) % size
  queue = write_rows(queue, places, rows, finite=finite)
  moved = (position + count) % size
  return queue, jnp.where(finite, moved, position).astype(position.dtype)
