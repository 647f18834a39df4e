"""Results of a run in results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax.runs import files

RESULTS = "results.json"


def read_results(workdir: epath.Path) -> list[dict[str, Any]]:
  """Reads the objects in `results.json`; none when there is no such file.

  Raises:
    InputError: the file is not a JSON list of objects.
  """
  path = workdir / RESULTS
  if not path.exists():
    return []
  try:
    rows = json.loads(path.read_bytes())
  except ValueError as error:
    raise errors.InputError(
      f"{path} is not JSON ({error}): move it away."
    ) from None
  if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
    raise errors.InputError(
      f"{path} is not a JSON list of objects: move it away."
    )
  return rows


def append_result(workdir: epath.Path, row: Mapping[str, Any]) -> None:
  """Appends an object to the list in `results.json`, atomically.

  Raises:
    InputError: the file exists but is not a JSON list of objects.
    ValueError: the object holds a number that is not finite.
  """
  rows = [*read_results(workdir), dict(row)]
  text = json.dumps(rows, indent=2, allow_nan=False) + "\n"
  files.replace_text(workdir / RESULTS, text)
