"""A memory bank of the targets of earlier steps, and searches in it.

A bank is a dictionary of arrays [T, B, ...]: the rows of T entire batches and
what is known of each. It is spread over the devices by `mesh.spread(1)`, each
device holding the places of its own images, so that a step writes without
communication. Step t overwrites batch t mod T. Its loss already sees those rows
in place of the oldest ones, without a copy of the bank.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp

from paws_jax.losses import mean_shift
from paws_jax.methods import tables

Bank = Mapping[str, jax.Array]

# `index` where there is no row yet.
EMPTY = -1


def create(
  size: int, batch_size: int, width: int, dtype: Any
) -> dict[str, jax.Array]:
  """Creates an empty bank.

  Args:
    size: number of rows, rounded up to entire batches.
    batch_size: of all devices.
    width: D.
    dtype: of the rows.

  Returns:
    "rows" [T, B, D] and "index" [T, B], the image of each row.
  """
  shape = (-(-size // batch_size), batch_size)
  return {
    "rows": jnp.zeros((*shape, width), dtype),
    "index": jnp.full(shape, EMPTY, jnp.int32),
  }


def batch_of(bank: Bank, step: jax.Array) -> jax.Array:
  """Returns the number of the batch that a step overwrites."""
  return step % bank["index"].shape[0]


def write(
  bank: Bank,
  new: Mapping[str, jax.Array],
  step: jax.Array,
  *,
  finite: jax.Array,
) -> dict[str, jax.Array]:
  """Overwrites the oldest batch.

  Args:
    bank: global arrays [T, B, ...].
    new: the same keys, [B, ...].
    step: steps taken before this one.
    finite: bool scalar; where it is False nothing is written.

  Returns:
    The bank, in the memory of the old one if that is donated.
  """
  place = batch_of(bank, step)[None]
  return {
    name: tables.write_rows(array, place, new[name][None], finite=finite)
    for name, array in bank.items()
  }


def column(bank: Bank, name: str, new: jax.Array, step: jax.Array) -> jax.Array:
  """Returns one number of each row, [M], with those of this step: [b]."""
  new = new.astype(bank[name].dtype)
  replaced = bank[name].at[batch_of(bank, step)].set(new)
  return replaced.reshape(-1)


def last_batch(bank: Bank, step: jax.Array) -> dict[str, jax.Array]:
  """Reads what the step before `step` has written: [b, ...] of each array."""
  batch = batch_of(bank, step - 1)
  return {name: array[batch] for name, array in bank.items()}


def gather(values: jax.Array, axis_name: Any) -> jax.Array:
  """Collects one number of each target of all devices: [b] -> [B]."""
  if axis_name is None:
    return values
  return jax.lax.all_gather(values, axis_name, tiled=True)


class Members(NamedTuple):
  """The images that the queries of a step were moved to, for monitoring."""

  # [B] images of all devices' queries.
  queries: jax.Array
  # [M] images of this device's rows of a memory bank, -1 where there is none.
  rows: jax.Array
  # [B, M] bool.
  chosen: jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Search:
  """This device's rows of a bank, with this step's targets among them.

  Attributes:
    rows: [M, D].
    newest: this step's targets, in place of the oldest batch.
    valid: [M] bool, rows that may be chosen.
    axis_name: mesh axes, or None outside `shard_map`.
  """

  rows: jax.Array
  newest: mean_shift.Newest
  valid: jax.Array
  axis_name: Any = None

  @classmethod
  def create(
    cls,
    rows: jax.Array,
    new: jax.Array,
    valid: jax.Array,
    batch: jax.Array,
    axis_name: Any,
  ) -> Search:
    """Makes a search of rows [T, b, D] and this step's rows [b, D]."""
    rows = rows.reshape(-1, rows.shape[-1])
    return cls(rows, mean_shift.Newest(new, batch), valid, axis_name)

  @functools.cached_property
  def cosines(self) -> jax.Array:
    """Cosines of this step's rows of all devices and the bank's: [B, M]."""
    return mean_shift.bank_cosines(
      self.newest.rows, self.rows, newest=self.newest, axis_name=self.axis_name
    )

  def nearest(self, k: int, allowed: jax.Array | None = None) -> jax.Array:
    """Finds the k nearest rows to each of this device's new rows.

    Args:
      k: how many.
      allowed: [B, M] bool, of the rows of all devices and the bank's here.

    Returns:
      [b, k] places in the bank of all devices, −1 where there are fewer.
    """
    valid = self.valid[None, :]
    return mean_shift.nearest_by_cosine(
      self.cosines,
      valid if allowed is None else valid & allowed,
      k=k,
      num_targets=self.newest.rows.shape[0],
      axis_name=self.axis_name,
    )

  def means(self, slots: jax.Array) -> jax.Array:
    """Averages chosen rows: [b, k] places -> [b, D]."""
    return mean_shift.member_means(
      self.rows, slots, newest=self.newest, axis_name=self.axis_name
    )

  def mask(self, slots: jax.Array) -> jax.Array:
    """Marks chosen rows: [b, k] places -> [B, M] bool."""
    num_targets, num_rows = slots.shape[0], self.rows.shape[0]
    if self.axis_name is not None:
      slots = jax.lax.all_gather(slots, self.axis_name, tiled=True)
      slots = mean_shift.local_places(slots, num_targets, self.axis_name)
    columns = jnp.where(slots >= 0, slots, num_rows)
    marked = jnp.zeros((slots.shape[0], num_rows), bool)
    rows = jnp.arange(slots.shape[0])[:, None]
    return marked.at[rows, columns].set(True, mode="drop")
