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

from paws_jax import distributed
from paws_jax import rendezvous

_Result = TypeVar("_Result")

_MOST_FIELDS = 8


class DisagreementError(distributed.DistributedError):
  """Processes of a run were given different things."""


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


def on_main(function: Callable[[], _Result]) -> _Result | None:
  """Calls a function on process 0, and waits for it; every process calls it.

  Returns:
    What it has returned; None on the others.

  Raises:
    Exception: on process 0, what the function has raised.
    DistributedError: on the others, when it has.
  """
  result, trouble = None, None
  if distributed.is_main():
    try:
      result = function()
    except Exception as error:
      trouble = error
  told = gather(str(trouble) if trouble else "")[0]
  if trouble is not None:
    raise trouble
  if told:
    raise distributed.DistributedError(f"process 0: {told}")
  return result


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
    more = len(differences) - _MOST_FIELDS
    raise DisagreementError(
      "the processes do not agree: "
      + "; ".join(differences[:_MOST_FIELDS])
      + (f"; and {more} more" if more > 0 else "")
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
