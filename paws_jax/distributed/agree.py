"""What the processes of a run tell each other, beside their arrays.

With one process everything here returns at once.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.distributed import lifecycle
from paws_jax.distributed import rendezvous

_Result = TypeVar("_Result")

_MOST_FIELDS = 8


def gather(value: Any) -> list[Any]:
  """What every process gives, by its number; every process calls it.

  Args:
    value: JSON-serialisable.
  """
  if jax.process_count() == 1:
    return [value]
  own = json.dumps(value, sort_keys=True).encode()
  lengths = multihost_utils.process_allgather(np.int32(len(own)))
  padded = np.zeros(lengths.max(), np.uint8)
  padded[: len(own)] = np.frombuffer(own, np.uint8)
  rows = multihost_utils.process_allgather(padded)
  return [
    json.loads(bytes(row[:length].astype(np.uint8)))
    for row, length in zip(rows, lengths, strict=True)
  ]


def on_all(function: Callable[[], _Result]) -> _Result:
  """Calls a function on every process; where it fails on one, all fail.

  It must not wait for other processes.

  Returns:
    What it has returned on this process.

  Raises:
    Exception: what the function has raised here.
    ValueError, DistributedError: when it has raised elsewhere; the former when
      that was a ValueError or TypeError, something that a user gave.
  """
  result, trouble = None, None
  try:
    result = function()
  except Exception as error:
    trouble = error
  refused = isinstance(trouble, (ValueError, TypeError, FileNotFoundError))
  told = str(trouble) or type(trouble).__name__ if trouble else ""
  everyone = gather([told, refused])
  if trouble is not None:
    raise trouble
  for number, (told, refused) in enumerate(everyone):
    if told:
      kind = errors.InputError if refused else errors.DistributedError
      raise kind(f"process {number}: {told}")
  return result


def on_main(function: Callable[[], _Result]) -> _Result | None:
  """`on_all`, but the function is called on process 0 alone; else None."""
  return on_all(function if lifecycle.is_main() else lambda: None)


def agree(**values: str) -> None:
  """Makes sure that every process has the same texts; every process calls it.

  Args:
    **values: texts by name, the names alike everywhere. Of objects of JSON the
      fields that differ are told.

  Raises:
    DisagreementError: in every process; names what differs, and who has what.
  """
  everyone = gather(values)
  differences = list(_differences(everyone))
  if differences:
    raise errors.DisagreementError(
      "the processes do not agree: "
      + text_lib.first_few(differences, most=_MOST_FIELDS, separator="; ")
      + ". Give all the same, and the same versions of the code."
    )


def _differences(everyone: list[dict[str, str]]) -> Iterator[str]:
  """What differs, one at a time."""
  fields = [
    dict(
      field
      for name, text in values.items()
      for field in _fields(name, text, whole=False)
    )
    for values in everyone
  ]
  for name in dict.fromkeys(name for each in fields for name in each):
    found = {i: each.get(name, "missing") for i, each in enumerate(fields)}
    if len(set(found.values())) > 1:
      yield f"{name} is {rendezvous.listed(found)}"


def _fields(
  name: str, value: Any, *, whole: bool = True
) -> Iterator[tuple[str, str]]:
  """Leaves of a text or of an object of JSON, by their path."""
  if not whole:
    with contextlib.suppress(ValueError):
      loaded = json.loads(value)
      if isinstance(loaded, dict):
        for key, field in loaded.items():
          # A recipe's fields are known by their own names.
          yield from _fields(key, field)
        return
  if isinstance(value, dict) and value:
    for key, field in value.items():
      yield from _fields(f"{name}.{key}", field)
  else:
    yield name, value if isinstance(value, str) else json.dumps(value)
