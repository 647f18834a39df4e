"""Paths, files that are read with a bound, and files written atomically.

A user may annotate a file that a later command writes again. So the sha256 of
what was written is noted in `RECORD`, beside the files; a file that is another
one now is renamed, not replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import pathlib
import stat
import sys
import tempfile
import uuid
from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax import json_text

RECORD = ".written.json"
# Bytes of one image, list or table; a larger one is refused.
MOST_BYTES = 2**30
_PIECE = 2**20
# Bytes that a file may hold beyond what the system says of it.
_MOST_MORE = 2**26
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
    # Memory for all that is asked for is allocated at once. A file of the
    # kernel without news gives None.
    content = file.read(status.st_size + 1) or b""
    if len(content) <= status.st_size:
      return content
    # Files of the kernel say that they are empty, and others may grow.
    pieces, size = [content], len(content)
    most = min(most, status.st_size + _MOST_MORE)
    while more := file.read(_PIECE):
      pieces.append(more)
      size += len(more)
      if size > most:
        raise OSError(f"it has no end after {most:,} bytes")
  return b"".join(pieces)


def read_own(path: epath.Path) -> bytes:
  """Reads a file of a work directory.

  Raises:
    WorkdirError: it cannot be read, or is not a regular file.
  """
  try:
    return read_bytes(path)
  except OSError as error:
    raise errors.WorkdirError(
      f"{path} cannot be read ({error.strerror or error}): move it away."
    ) from error


def replace_text(path: epath.Path, text: str) -> None:
  """Writes a file atomically: a crash leaves the old text or the new one."""
  _replace(path, text.encode())


def _replace(path: epath.Path, content: bytes, temporary: str = "") -> None:
  if not isinstance(path, pathlib.Path):
    # An object in a bucket is written completely or not at all.
    path.write_bytes(content)
    return
  path = behind_link(path)
  new = path.with_name(temporary or f".{path.name}.tmp")
  try:
    new.write_bytes(content)
    os.replace(new, path)
  except OSError as error:
    with contextlib.suppress(OSError):
      new.unlink()
    if error.errno is not None and error.filename is None:
      # A write that fails does not name its file.
      error.filename = str(path)
    raise


def replace_output(
  path: epath.Path, content: str | bytes, *, noted: bool = True
) -> None:
  """Writes a file atomically; one that somebody has changed is kept.

  Prints the new name of a file that is kept.

  Args:
    path: the file.
    content: a text is encoded as UTF-8.
    noted: whether the file is recorded; if not, the next one is written beside
      it unless it is the same.
  """
  data = content.encode() if isinstance(content, str) else content
  if path.exists() and not (path.is_file() and path.read_bytes() == data):
    keep_foreign(path)
  if isinstance(content, str):
    replace_text(path, content)
  else:
    _replace(path, content)
  if noted:
    record(path)


def replace_object(
  path: epath.Path, value: Mapping[str, Any], *, edited: bool = False
) -> None:
  """Writes a JSON object; a file `edited`, or with other fields, is renamed."""
  try:
    foreign = edited or (read_object(path) or {}).keys() - value.keys()
  except errors.WorkdirError:
    foreign = True
  if foreign:
    print(f"{path} holds something else: it is kept as {set_aside(path).name}")
  replace_text(path, to_json(value))


def remove_output(path: epath.Path) -> None:
  """Removes a file if there is one; one that somebody has changed is kept."""
  if path.exists():
    keep_foreign(path)
    path.unlink(missing_ok=True)


def keep_foreign(path: epath.Path) -> None:
  """Renames a file that is not as it was recorded, and prints the new name."""
  if path.exists() and not is_recorded(path):
    print(f"what was in {path} before is kept as {set_aside(path).name}")


def set_aside(path: epath.Path) -> epath.Path:
  """Renames a file; returns the new path, one that is free."""
  free = free_name(path)
  path.rename(free)
  return free


def free_name(path: epath.Path, stem: str | None = None) -> epath.Path:
  """NAME.old.csv, or the first of NAME.old-1.csv ... that is not there.

  Args:
    path: NAME.csv.
    stem: NAME; default: all before the last dot.
  """
  stem = path.stem if stem is None else stem
  ends = itertools.chain([""], (f"-{i}" for i in itertools.count(1)))
  names = (f"{stem}.old{end}{path.name[len(stem) :]}" for end in ends)
  paths = map(path.parent.joinpath, names)
  # A link to nowhere takes a name, too.
  return next(p for p in paths if not p.exists() and not os.path.islink(p))


def behind_link(path: epath.Path) -> epath.Path:
  """Where a symbolic link leads, so that a file written there keeps it."""
  return pathlib.Path(os.path.realpath(path)) if os.path.islink(path) else path


def record(path: epath.Path) -> None:
  """Notes a file as it is now: a later command may replace it."""
  known = _recorded(path.parent) | {path.name: sha256(path)}
  # Several processes may note files of one directory.
  temporary = f".{uuid.uuid4().hex[:12]}.tmp"
  _replace(path.parent / RECORD, to_json(known).encode(), temporary)


def is_recorded(path: epath.Path) -> bool | None:
  """Whether a file is as it was when it was last noted; None: it never was.

  What is no file, such as a directory, never was.
  """
  known = _recorded(path.parent).get(path.name) if path.is_file() else None
  return None if known is None else known == sha256(path)


def _recorded(directory: epath.Path) -> dict[str, Any]:
  """The sha256 by name; without a record every file is somebody's."""
  path = directory / RECORD
  try:
    known = json_text.parse(read_bytes(path)) if path.exists() else {}
  except (OSError, ValueError):
    return {}
  return known if isinstance(known, dict) else {}


def sha256(path: epath.Path) -> str:
  """Hex digest of a file."""
  if not isinstance(path, pathlib.Path):
    return hashlib.sha256(path.read_bytes()).hexdigest()
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def check_writable(path: epath.Path, remedy: str) -> None:
  """Refuses a file that cannot be written, by trying; leaves nothing.

  Args:
    path: the file, whose directory need not exist.
    remedy: what to do, an imperative without a full stop.

  Raises:
    WorkdirError: it cannot be written.
  """
  if not isinstance(path, pathlib.Path):
    return
  try:
    target = behind_link(path)
    if target.exists():
      check_regular(target, most=sys.maxsize)
    elif path.is_symlink() and (
      target.is_symlink() or not target.parent.is_dir()
    ):
      raise OSError(f"it is a link to {target}, which is nowhere")
    there = next(folder for folder in target.parents if folder.exists())
    # Permission bits say nothing of read-only disks and of the superuser.
    with tempfile.TemporaryFile(dir=there):
      pass
    if target.exists():
      target.open("ab").close()
  except OSError as error:
    raise errors.WorkdirError(
      f"{path} cannot be written ({error.strerror or error}): {remedy}."
    ) from None


def resolve(path: str | os.PathLike[str]) -> epath.Path:
  """Makes the path that a user writes absolute; "gs://..." stays as it is.

  Raises:
    InputError: the text is no path.
  """
  name = os.fsdecode(path)
  if "\0" in name:
    raise errors.InputError(f"{name!r} is no path: it contains a zero byte.")
  if "://" not in name:
    full = os.path.expanduser(name)
    if full.startswith("~") and not os.path.lexists(full):
      raise errors.InputError(
        f"{name} begins with the home directory of a user that is not there: "
        f"write it out, or ./{name} for a file of this name."
      )
    return pathlib.Path(full).absolute()
  try:
    return epath.Path(name)
  except KeyError:
    raise errors.InputError(
      f"{name} is neither a path on a disk nor in a bucket (gs://, s3://): "
      "download what is there, and give its path."
    ) from None


def read_object(path: epath.Path) -> dict[str, Any] | None:
  """Reads a file that holds a JSON object; None if there is no such file.

  Raises:
    WorkdirError: the file holds something else.
  """
  if not path.exists():
    return None
  try:
    value = json_text.parse(read_own(path))
  except errors.WorkdirError:
    raise
  except ValueError as error:
    raise errors.WorkdirError(
      f"{path} is not JSON ({error}): move it away."
    ) from None
  if not isinstance(value, dict):
    raise errors.WorkdirError(f"{path} is not a JSON object: move it away.")
  return value


def to_json(value: Any) -> str:
  """Formats a value as an indented JSON text that ends with a newline."""
  return json.dumps(value, indent=2, default=json_text.number) + "\n"
