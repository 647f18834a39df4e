"""Losses of many rows, computed a block at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax


def in_blocks(
  function: Callable[[Any], Any], rows: Any, *, num_blocks: int
) -> Any:
  """Applies a function of rows to one block of them after the other.

  What it computes on the way, such as similarities of the rows to others, is
  there for one block at a time, in the backward pass as well: it is computed
  again.

  Args:
    function: of a tree as `rows`, gives a tree of arrays with as many rows; the
      result of a row must not depend on the others.
    rows: a tree of arrays [n, ...].
    num_blocks: divides n; 1: all at once.

  Returns:
    What the function gives for all rows.
  """
  if num_blocks == 1:
    return function(rows)
  blocks = jax.tree.map(lambda x: x.reshape(num_blocks, -1, *x.shape[1:]), rows)
  results = jax.lax.map(jax.checkpoint(function, prevent_cse=False), blocks)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)
