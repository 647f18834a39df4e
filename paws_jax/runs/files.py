"""Paths, and small files that are written atomically."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax import json_text


def replace_text(path: epath.Path, text: str) -> None:
  """Writes a file atomically: a crash leaves the old text or the new one."""
  if not isinstance(path, pathlib.Path):
    # An object in a bucket is written completely or not at all.
    path.write_text(text, encoding="utf-8")
    return
  temporary = path.with_name(f".{path.name}.tmp")
  temporary.write_text(text, encoding="utf-8")
  os.replace(temporary, path)


def resolve(path: str | os.PathLike[str]) -> epath.Path:
  """Makes the path that a user writes absolute; "gs://..." stays as it is."""
  if "://" in os.fspath(path):
    return epath.Path(path)
  return pathlib.Path(path).expanduser().absolute()


def read_object(path: epath.Path) -> dict[str, Any] | None:
  """Reads a file that holds a JSON object; None if there is no such file.

  Raises:
    WorkdirError: the file holds something else.
  """
  if not path.exists():
    return None
  try:
    value = json_text.parse(path.read_bytes())
  except ValueError as error:
    raise errors.WorkdirError(
      f"{path} is not JSON ({error}): move it away."
    ) from None
  if not isinstance(value, dict):
    raise errors.WorkdirError(f"{path} is not a JSON object: move it away.")
  return value


def to_json(value: Any) -> str:
  """Formats a value as an indented JSON text that ends with a newline."""
  return json.dumps(value, indent=2) + "\n"
