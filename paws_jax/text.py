"""Pieces of the messages that people read."""

from __future__ import annotations

import re
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

  Examples:
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


def count(number: int, one: str, several: str = "") -> str:
  """Returns a number with its noun: "1 image", "1,200 images"."""
  word = one if number == 1 else several or f"{one}s"
  return f"{number:,} {word}"


def rounded(number: float) -> str:
  """Rounds to three digits, or to an integer: "0.0125", "1.5", "1,235"."""
  return f"{number:.3g}" if abs(number) < 999.5 else f"{number:,.0f}"


# Bytes of a file name that are not UTF-8, as Python has them in a string; what
# breaks lines of a table; and a backslash that could be taken for a notation.
_SPECIAL = re.compile(r"[\udc80-\udcff\0\r]|\\(?=x[0-9a-f]{2})")
_NOTATION = re.compile(r"\\x([0-9a-f]{2})")


def escape(name: str) -> str:
  r"""Writes a file name so that it can be encoded as UTF-8.

  Bytes that are not UTF-8, line returns and NUL become \xff, \x0d and \x00, as
  in Python's notation; all else stays as it is. `unescape` undoes it.

  Examples:
    >>> escape("caf\udce9.png")
    'caf\\xe9.png'
  """
  return (
    _SPECIAL.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)
    .encode("utf-8", "backslashreplace")
    .decode()
  )


def unescape(text: str) -> str:
  """The name of which `escape` gave a text."""
  return _NOTATION.sub(lambda found: _character(int(found[1], 16)), text)


def _character(byte: int) -> str:
  return bytes([byte]).decode("utf-8", "surrogateescape")


def is_writable(text: str) -> bool:
  """Whether a text can be written to a file, as a name on a disk can."""
  try:
    text.encode("utf-8", "surrogateescape")
  except UnicodeEncodeError:
    return False
  return True


def printable(value: Any, *, most: int = 200) -> str:
  """Shows a text of a file that may be long, or control a terminal.

  Args:
    value: shown by its `str`; what cannot be printed becomes a question mark.
    most: characters to show.
  """
  shown = str(value)
  ending = f"... ({len(shown):,} characters)" if len(shown) > most else ""
  return "".join(c if c.isprintable() else "?" for c in shown[:most]) + ending
