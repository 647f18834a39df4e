"""Results of a run in results.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax import json_text
from paws_jax.runs import files

RESULTS = "results.json"
_TEXTS = ("task", "protocol", "part", "title", "method", "dataset", "run_id")
_COUNTS = ("step", "steps")


def read_results(workdir: epath.Path) -> list[dict[str, Any]]:
  """Reads the objects in `results.json`; none when there is no such file.

  Raises:
    InputError, WorkdirError: the file cannot be read, is not a JSON list of
      objects, or a field that this program reads holds something else than it
      writes.
  """
  path = workdir / RESULTS
  if not path.exists():
    return []
  try:
    rows = json_text.parse(files.read_own(path))
  except errors.WorkdirError:
    raise
  except ValueError as error:
    raise errors.InputError(
      f"{path} is not JSON ({error}): move it away."
    ) from None
  if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
    raise errors.InputError(
      f"{path} is not a JSON list of objects: move it away."
    )
  for place, row in enumerate(rows, 1):
    for name, value in row.items():
      if value is not None and not _is_sane(name, value):
        raise errors.InputError(
          f"{path} is damaged: {name} of its object {place} is "
          f"{str(value)[:40]!r}: correct it, or move the file away."
        )
  return rows


def _is_sane(name: str, value: Any) -> bool:
  """Whether a field's value is of the kind that results have."""
  if name in _TEXTS:
    return isinstance(value, str)
  if name in _COUNTS or name.startswith("num_"):
    return type(value) is int and value >= 0
  if name == "per_class_top1":
    return isinstance(value, list) and all(
      each is None or _is_fraction(each) for each in value
    )
  if name.endswith(("top1", "top5")):
    return _is_fraction(value)
  if name.endswith(("top1_interval", "top5_interval")):
    return (
      isinstance(value, list)
      and len(value) == 2
      and all(map(_is_fraction, value))
    )
  if name.endswith(("_seconds", "_per_second")):
    return type(value) in (int, float) and value >= 0
  return True


def _is_fraction(value: Any) -> bool:
  return type(value) in (int, float) and 0 <= value <= 1


def append_result(workdir: epath.Path, row: Mapping[str, Any]) -> None:
  """Appends an object to the list in `results.json`, atomically.

  A file that holds something else by now is renamed: what was measured is not
  to be lost for it.

  Raises:
    ValueError: the object holds a number that is not finite.
  """
  path = workdir / RESULTS
  added = json.dumps([dict(row)], indent=2, allow_nan=False)
  try:
    rows = read_results(workdir)
  except (errors.InputError, errors.WorkdirError) as error:
    print(f"{error} It is kept as {files.set_aside(path).name}.")
    rows = []
  if rows:
    # What is there stays as it is, also what Python would write otherwise.
    content = path.read_bytes()
    text = content.decode(json.detect_encoding(content))
    added = text.rstrip().removesuffix("]").rstrip() + "," + added[1:]
  files.replace_text(path, added + "\n")


def append_new(workdir: epath.Path, rows: Sequence[Mapping[str, Any]]) -> None:
  """Appends the objects that are not there; raises as `append_result`."""
  try:
    known = read_results(workdir)
  except (errors.InputError, errors.WorkdirError):
    known = []
  for row in rows:
    if row not in known:
      append_result(workdir, row)
