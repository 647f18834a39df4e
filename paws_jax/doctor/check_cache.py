"""Results of reading image files, kept for the next call of the doctor.

A file in the user's cache, `paws_jax/doctor.sqlite3`, has a row for each image
file by its path, valid while size and times of the file, the settings of
reading and the code are the same. Only images without a fault are kept. A file
that cannot be read or written is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pathlib
import sqlite3
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax import json_text
from paws_jax.data.sources import catalog
from paws_jax.runs import provenance

_NAME = "doctor.sqlite3"
# A larger file begins anew: nothing else removes rows of deleted images.
_MOST_BYTES = 2**28
# Of waiting for another process.
_SECONDS = 1.0
_TABLE = (
  "CREATE TABLE IF NOT EXISTS checks "
  "(path BLOB PRIMARY KEY, stamp BLOB, fields TEXT, sum BLOB) WITHOUT ROWID"
)
_SELECT = "SELECT path, stamp, fields, sum FROM checks"
_AT_ONCE = 500


def default_path() -> pathlib.Path | None:
  """Returns the file in the user's cache; None where there is no home."""
  directory = os.environ.get("XDG_CACHE_HOME")
  if directory:
    return pathlib.Path(directory) / "paws_jax" / _NAME
  try:
    return pathlib.Path.home() / ".cache" / "paws_jax" / _NAME
  except RuntimeError:
    return None


class CheckCache:
  """A cache of what was found in image files.

  Attributes:
    path: of the file; None where nothing is kept.
    num_known: images that did not have to be read.
  """

  def __init__(self, path: pathlib.Path | None, **settings: Any):
    """Opens the file.

    Args:
      path: the file; None keeps nothing.
      **settings: on which the results depend, JSON-serializable.
    """
    self.path = path
    self.num_known = 0
    text = json.dumps([settings, provenance.code_hash()], sort_keys=True)
    self._settings = text.encode()
    # By row, the key of a path and the stamp of its file before it was read.
    self._files: dict[int, tuple[bytes, bytes]] = {}
    self._database: sqlite3.Connection | None = None
    if path is not None:
      self._open(path)

  def __enter__(self) -> CheckCache:
    return self

  def __exit__(self, *_: object) -> None:
    with self._safely():
      if self._database is not None:
        self._database.close()
    self._database = None

  def look_up(
    self, images: catalog.Reader, rows: Sequence[int]
  ) -> dict[int, list[Any]]:
    """Finds what is known of images, the fields by row.

    Args:
      images: those that are no files are not known.
      rows: of the images.
    """
    self._files = {}
    if self._database is None or not isinstance(images, catalog.Files):
      return {}
    for row in rows:
      # One that is gone is not known.
      with contextlib.suppress(OSError):
        self._files[row] = self._key_and_stamp(images.path(row))
    kept: dict[bytes, tuple[bytes, str, bytes]] = {}
    wanted = [key for key, _ in self._files.values()]
    with self._safely():
      for first in range(0, len(wanted), _AT_ONCE):
        some = wanted[first : first + _AT_ONCE]
        places = ",".join("?" * len(some))
        query = f"{_SELECT} WHERE path IN ({places})"
        for key, *row in self._database.execute(query, some):
          kept[key] = tuple(row)
    known = {}
    for row, (key, stamp) in self._files.items():
      kept_stamp, fields, checksum = kept.get(key, (b"", "", b""))
      if kept_stamp == stamp and checksum == _checksum(key, fields):
        known[row] = json_text.parse(fields)
    self.num_known += len(known)
    return known

  def keep(self, found: Mapping[int, Sequence[Any]]) -> None:
    """Keeps what was found in images of the last `look_up`.

    Args:
      found: fields by row, JSON-serializable.
    """
    if self._database is None:
      return
    rows = []
    for row, fields in found.items():
      if row in self._files:
        key, stamp = self._files[row]
        text = json.dumps(fields)
        rows.append((key, stamp, text, _checksum(key, text)))
    with self._safely(), self._database:
      self._database.executemany(
        "INSERT OR REPLACE INTO checks VALUES (?, ?, ?, ?)", rows
      )

  def _key_and_stamp(self, path: str) -> tuple[bytes, bytes]:
    """Returns the key of a path, and the stamp of its file as it is now."""
    path = os.path.abspath(path)
    stat = os.stat(path)
    # The time of the last change of an inode cannot be set back.
    times = f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    stamp = _digest(times.encode() + self._settings)
    return _digest(os.fsencode(path)), stamp

  def _open(self, path: pathlib.Path) -> None:
    """Opens the file; begins anew where it is damaged or too large."""
    with self._safely():
      path.parent.mkdir(parents=True, exist_ok=True)
      with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > _MOST_BYTES:
          path.unlink()
      self._connect(path)
    if self._database is None:
      # Removed if it was damaged; then this time it works.
      with self._safely():
        self._connect(path)

  def _connect(self, path: pathlib.Path) -> None:
    self._database = sqlite3.connect(path, timeout=_SECONDS)
    # A cache may be lost with the power.
    self._database.execute("PRAGMA synchronous = OFF")
    self._database.execute(_TABLE)
    self._database.execute(f"{_SELECT} LIMIT 1")

  @contextlib.contextmanager
  def _safely(self) -> Iterator[None]:
    """Stops using the file at an error, and removes it if it is damaged."""
    try:
      yield
    except (OSError, sqlite3.Error) as error:
      if self._database is not None:
        with contextlib.suppress(sqlite3.Error):
          self._database.close()
      self._database = None
      # An OperationalError has other reasons: no access, a full disk, a lock.
      damaged = isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError
      )
      if damaged and self.path is not None:
        with contextlib.suppress(OSError):
          self.path.unlink()


def _digest(content: bytes) -> bytes:
  return hashlib.blake2b(content, digest_size=16).digest()


def _checksum(key: bytes, fields: str) -> bytes:
  """Returns a checksum, which differs where a bit has flipped."""
  return hashlib.blake2b(key + fields.encode(), digest_size=8).digest()
