"""Files that grow while a run writes them, on a disk or in a bucket."""

from __future__ import annotations

import pathlib
import time
from typing import BinaryIO

from etils import epath

# Seconds between two writes of a file to a bucket.
_OBJECT_SECONDS = 60.0


class _Object:
  """A file in a bucket, rewritten at intervals, since it cannot grow."""

  def __init__(self, path: epath.Path, content: bytes):
    """Continues after `content`, which the file holds already."""
    self._path = path
    self._content = bytearray(content)
    self._written = time.monotonic()

  def write(self, content: bytes) -> None:
    self._content += content

  def flush(self) -> None:
    if time.monotonic() - self._written >= _OBJECT_SECONDS:
      self.close()

  def close(self) -> None:
    self._path.write_bytes(bytes(self._content))
    self._written = time.monotonic()


def open_file(path: epath.Path, content: bytes = b"") -> BinaryIO | _Object:
  """Opens a file to append to it.

  Args:
    path: of the file.
    content: what it holds already.

  Returns:
    A file with `write`, `flush` and `close`. On a disk, what was written is
    there after `flush`; in a bucket within a minute, and after `close`.
  """
  if isinstance(path, pathlib.Path):
    return path.open("ab")
  return _Object(path, content)


def write_out(file: BinaryIO | _Object) -> None:
  """Writes all that a file of `open_file` holds, also to a bucket."""
  if isinstance(file, _Object):
    file.close()
  else:
    file.flush()
