"""Paths, files that are read with a bound, and files written atomically."""

from __future__ import annotations

import json
import os
import pathlib
import stat
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax import json_text

# Bytes of one image, list or table; a larger one is refused.
MOST_BYTES = 2**30
_PIECE = 2**20
_KINDS = {
  stat.S_IFIFO: "a named pipe",
  stat.S_IFSOCK: "a socket",
  stat.S_IFCHR: "a device",
  stat.S_IFBLK: "a device",
  stat.S_IFDIR: "a directory",
}


def check_regular(
  path: str | os.PathLike[str], *, most: int = MOST_BYTES
) -> None:
  """Refuses a local file that may have no end, or is too large.

  A named pipe or a device may never answer, so that nothing is opened here.

  Args:
    path: the file; symbolic links are followed.
    most: bytes that it may have.

  Raises:
    OSError: there is no regular file of this size; says what there is.
  """
  _check_status(os.stat(path), most)


def _check_status(status: os.stat_result, most: int) -> None:
  kind = stat.S_IFMT(status.st_mode)
  if kind != stat.S_IFREG:
    raise OSError(f"it is {_KINDS.get(kind, 'no file')}, not a regular file")
  if status.st_size > most:
    raise OSError(
      f"it has {status.st_size:,} bytes, and no more than {most:,} are read"
    )


def read_bytes(
  path: str | os.PathLike[str], *, most: int = MOST_BYTES
) -> bytes:
  """Reads a regular file, or an object in a bucket.

  Args:
    path: a local path, or epath's path in a bucket.
    most: bytes that a local file may have.

  Raises:
    OSError: as `check_regular`; also when it cannot be read.
  """
  if isinstance(path, epath.Path) and not isinstance(path, pathlib.Path):
    return path.read_bytes()
  check_regular(path, most=most)
  # If a pipe has taken the file's place since, opening it does not wait.
  no_wait = getattr(os, "O_NONBLOCK", 0)
  with open(
    path, "rb", opener=lambda name, flags: os.open(name, flags | no_wait)
  ) as file:
    status = os.fstat(file.fileno())
    _check_status(status, most)
    # Memory for all that is asked for is allocated at once.
    content = file.read(status.st_size + 1)
    # Files of the kernel say that they are empty, and others may grow.
    while len(content) > status.st_size and (more := file.read(_PIECE)):
      content += more
      if len(content) > most:
        raise OSError(f"it has no end after {most:,} bytes")
  return content


def read_table(path: str | os.PathLike[str], where: str) -> bytes:
  """Reads a list or table of the user.

  Args:
    path: a local file.
    where: the field or flag that names it, for messages.

  Raises:
    InputError: it cannot be read, or is not a regular file.
  """
  try:
    return read_bytes(path)
  except OSError as error:
    raise errors.InputError(
      f"{where} cannot be read ({error.strerror or error}): give another file, "
      "or make it readable."
    ) from error


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
    value = json_text.parse(read_bytes(path))
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
