"""A file with the runs of a run's loggers, and how far each of them is."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from etils import epath

from paws_jax import json_text
from paws_jax.runs import files

RECORD = "loggers.json"


@dataclasses.dataclass(frozen=True)
class Entry:
  """Progress of one writer.

  Attributes:
    run_id: of its run; "" where it has none.
    sent: the last step of which rows were sent; -1: none.
    is_open: whether a process has not noted its end: it is writing, or was
      killed.
    is_complete: whether a finished run was sent to its end.
  """

  run_id: str
  sent: int
  is_open: bool = True
  is_complete: bool = False


def read(workdir: epath.Path) -> dict[str, Entry]:
  """Reads the entries by the name of the writer."""
  path = workdir / RECORD
  if not path.exists():
    return {}
  content = files.read_own(path)
  try:
    stored = json_text.parse(content)
  except ValueError:
    stored = None
  if not isinstance(stored, dict):
    print(f"warning: {path} is damaged: loggers start new runs")
    return {}
  return {
    # Version 0.2.0 does not say whether a run is complete.
    name: Entry(**{"is_complete": not entry["is_open"]} | entry)
    for name, entry in stored.items()
    if _is_entry(entry)
  }


def clear(workdir: epath.Path) -> None:
  """Removes all entries: a run that starts again has nothing to continue."""
  # Reading names what is no file.
  if (workdir / RECORD).exists() and read(workdir) is not None:
    files.replace_text(workdir / RECORD, "{}\n")


def note(workdir: epath.Path, name: str, entry: Entry) -> None:
  """Replaces the entry of a writer."""
  entries = read(workdir) | {name: entry}
  stored = {name: dataclasses.asdict(each) for name, each in entries.items()}
  files.replace_text(
    workdir / RECORD, json.dumps(stored, indent=2, sort_keys=True) + "\n"
  )


def _is_entry(value: Any) -> bool:
  kinds = {"run_id": str, "sent": int, "is_open": bool, "is_complete": bool}
  return (
    isinstance(value, dict)
    and value.keys() <= kinds.keys()
    and all(
      type(({"is_complete": False} | value).get(name)) is kind
      for name, kind in kinds.items()
    )
  )
