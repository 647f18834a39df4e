"""Exchange of values and errors between the processes of a run.

With one process every function here returns at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from paws_jax import errors
from paws_jax import json_text
from paws_jax import text as text_lib
from paws_jax.distributed import lifecycle
from paws_jax.distributed import rendezvous

_Result = TypeVar("_Result")

_MAX_FIELDS = 8


def gather(value: Any) -> list[Any]:
  """Returns the values of all processes, in their order; called by all.

  Args:
    value: JSON-serializable.
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
  """Calls a function on every process; an error on one is raised on all.

  The function must not wait for other processes.

  Raises:
    Exception: the one that the function has raised on this process.
    InputError, DistributedError: when it has raised on another process; the
      former for a ValueError, TypeError or FileNotFoundError, which a user's
      input causes.
  """
  result: Any = None
  raised: Exception | None = None
  try:
    result = function()
  except Exception as error:
    raised = error
  message = str(raised) or type(raised).__name__ if raised else ""
  by_input = isinstance(raised, (ValueError, TypeError, FileNotFoundError))
  everyone = gather([message, by_input])
  if raised is not None:
    raise raised
  for number, (message, by_input) in enumerate(everyone):
    if message:
      kind = errors.InputError if by_input else errors.DistributedError
      raise kind(f"process {number}: {message}")
  return result


def on_main(function: Callable[[], _Result]) -> _Result | None:
  """Calls a function as `on_all` does, but on process 0 alone; else None."""
  return on_all(function if lifecycle.is_main() else lambda: None)


def agree(**values: str) -> None:
  """Checks that all processes have the same texts; called by all.

  Args:
    **values: texts by name, the same names everywhere. Of a JSON object the
      fields that differ are named.

  Raises:
    DisagreementError: on every process; names what differs, and who has what.
  """
  everyone = [_flatten(each) for each in gather(values)]
  differences = []
  for name in dict.fromkeys(name for each in everyone for name in each):
    found = {i: each.get(name, "missing") for i, each in enumerate(everyone)}
    if len(set(found.values())) > 1:
      differences.append(f"{name} is {rendezvous.list_values(found)}")
  if differences:
    raise errors.DisagreementError(
      "the processes do not agree: "
      + text_lib.first_few(differences, most=_MAX_FIELDS, separator="; ")
      + ". Give all the same, and the same versions of the code."
    )


def _flatten(values: Mapping[str, str]) -> dict[str, str]:
  """Replaces JSON objects by their fields, which have names of their own."""
  fields: dict[str, str] = {}
  for name, value in values.items():
    try:
      loaded = json_text.parse(value)
    except ValueError:
      loaded = None
    fields |= _leaves(loaded) if isinstance(loaded, dict) else {name: value}
  return fields


def _leaves(
  tree: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, str]]:
  """Yields the paths of a JSON object's fields, and their values as text."""
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      yield from _leaves(value, f"{prefix}{key}.")
    else:
      yield prefix + key, value if isinstance(value, str) else json.dumps(value)
