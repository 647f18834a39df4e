"""Pieces of the messages that people read."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MOST_LISTED = 5


def first_few(
  items: Iterable[Any], *, most: int = MOST_LISTED, separator: str = ", "
) -> str:
  """Lists the first items, and how many more there are.

  Args:
    items: listed by their `str`.
    most: items to list, at least 1.
    separator: between two items.

  Returns:
    "" without an item.

  Example:
    >>> first_few("abcdefg", most=3)
    'a, b, c and 4 more'
    >>> first_few(["line 1: x", "line 2: y"], most=1, separator="; ")
    'line 1: x; and 1 more'
  """
  texts = [str(item) for item in items]
  shown = separator.join(texts[:most])
  more = len(texts) - most
  if more <= 0:
    return shown
  return f"{shown}{' ' if separator == ', ' else separator}and {more:,} more"
