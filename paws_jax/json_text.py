"""Reads JSON that a user may have edited or received, within bounds.

All JSON of users is read here. `json.loads` by itself raises RecursionError for
deep nesting, which no caller expects, and accepts numbers that no float or
array can hold.
"""

from __future__ import annotations

import json
import math
from typing import Any

_MAX_BYTES = 2**28
_MAX_DEPTH = 64
# Digests are unsigned integers of 64 bits.
_MAX_INTEGER = 2**64


def parse(content: bytes | str, *, non_finite: bool = False) -> Any:
  """Parses a JSON text.

  Args:
    content: the text; as bytes in UTF-8, also with a byte order mark.
    non_finite: whether NaN and infinities are read as Python writes them, which
      is not JSON.

  Raises:
    ValueError: in one clause: it is not JSON, or holds NaN, an infinite or very
      large number, or hundreds of nested lists.
  """
  if len(content) > _MAX_BYTES:
    raise ValueError(f"it has {len(content):,} bytes, more than {_MAX_BYTES:,}")
  if not content.strip():
    raise ValueError("it is empty")
  try:
    refuse = None if non_finite else _refuse_constant
    value = json.loads(content, parse_constant=refuse)
  except RecursionError:
    raise ValueError(_too_deep()) from None
  except json.JSONDecodeError:
    raise
  except UnicodeDecodeError as error:
    raise ValueError(f"it is not UTF-8: {error.reason}") from None
  except ValueError as error:
    # Python's own limit of digits; its advice is for programmers.
    if "integer string" in str(error):
      raise ValueError("it holds a number of thousands of digits") from None
    raise
  _check_values(value, non_finite)
  return value


def number(value: Any) -> Any:
  """The number of Python in a scalar of NumPy or JAX, for `json.dumps`."""
  if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
    return value.item()
  raise TypeError(f"{value!r} is a {type(value).__name__}")


def _refuse_constant(name: str) -> None:
  raise ValueError(f"it holds {name}, which is no JSON number")


def _check_values(value: Any, non_finite: bool) -> None:
  """Refuses numbers that are too large, and deep nesting, level by level."""
  level = [value]
  for _ in range(_MAX_DEPTH):
    below: list[Any] = []
    for item in level:
      kind = type(item)
      if kind is list:
        below += item
      elif kind is dict:
        below += item.values()
      elif kind is int and not -_MAX_INTEGER < item < _MAX_INTEGER:
        raise ValueError(f"it holds an integer of {len(str(item))} digits")
      elif kind is float and math.isinf(item) and not non_finite:
        raise ValueError("it holds a number above 1.8e308")
    if not below:
      return
    level = below
  raise ValueError(_too_deep())


def _too_deep() -> str:
  return f"it is nested more than {_MAX_DEPTH} levels deep"
