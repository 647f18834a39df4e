"""Sets of rows of a memory bank to which a query's neighbours are limited.

A constraint is the pair of which rows each query may choose, [B, M] bool of the
queries of all devices and this device's rows, and whether a query of this
device may choose every row, [b] bool.
"""

from __future__ import annotations

from typing import Any

import jax

from paws_jax.methods import memory_bank

Constraint = tuple[jax.Array, jax.Array]


def near_before(
  bank: memory_bank.Bank,
  new: dict[str, jax.Array],
  step: jax.Array,
  *,
  k: int,
  axis_name: Any,
) -> Constraint:
  """Allows rows whose images were near the query's an epoch before.

  Args:
    bank: this device's part, with "previous" and "has_previous".
    new: the same of this step's images; those without are not limited.
    step: steps taken before this one.
    k: rows that count as near.
    axis_name: mesh axes, or None outside `shard_map`.
  """
  search = memory_bank.Search.create(
    bank["previous"],
    new["previous"],
    memory_bank.column(bank, "has_previous", new["has_previous"], step),
    memory_bank.batch_of(bank, step),
    axis_name,
  )
  free = ~new["has_previous"]
  near = search.mask(search.nearest(k))
  return near | memory_bank.gather(free, axis_name)[:, None], free


def same_class(
  own: jax.Array, rows: jax.Array, *, axis_name: Any
) -> Constraint:
  """Allows rows of the query's class.

  Args:
    own: [b] integers, classes of this device's queries; negative: none, which
      is not limited.
    rows: [M] integers, of its rows of the bank; negative: none.
    axis_name: mesh axes, or None outside `shard_map`.
  """
  every = memory_bank.gather(own, axis_name)[:, None]
  return (every == rows[None, :]) | (every < 0), own < 0
