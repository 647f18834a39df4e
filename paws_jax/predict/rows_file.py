"""A table of images that grows row by row, as a CSV file or below another one.

Beside NAME.csv stand NAME.csv.json, which says of which classifier and of which
images the rows are, and NAME.unreadable.csv, if there are such images. Rows are
appended to a CSV file, which a crash leaves with at most one incomplete
row. Other files cannot grow: their rows are kept in NAME.parquet.part, a CSV
file, until all are there. Of a file that somebody has changed only that
incomplete row is ever dropped: all else stays in it, or in NAME.old.csv.
"""

from __future__ import annotations

import abc
import contextlib
import os
import pathlib
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Self

from paws_jax import errors
from paws_jax import json_text
from paws_jax import packages
from paws_jax.predict import csv_rows
from paws_jax.runs import files
from paws_jax.runs import locks

# The rows of a file that cannot grow, until all are there.
_PART = ".part"
# What to call a part of the description of rows that is another one.
_OTHERS = {
  "classifier": "another classifier",
  "layer": "another layer",
  "images": "other images",
}


def check_path(given: str, suffixes: Sequence[str]) -> pathlib.Path:
  """The path of --output, made absolute; writes nothing.

  Args:
    given: the path.
    suffixes: two, of the kinds of file that there may be; the first one needs
      no other package.

  Raises:
    ValueError: when it has none of these suffixes, when a file is there that
      this task has not written, when it cannot be written, or when what says
      of what its rows are is damaged.
    MissingPackageError: when pyarrow is missing.
  """
  if "://" in given:
    raise errors.InputError(
      f"--output={given} is in a bucket, where a file cannot grow: write to a "
      "disk, and copy it."
    )
  path = files.resolve(given)
  plain, _ = suffixes
  if path.suffix not in suffixes:
    raise errors.InputError(
      f"--output={given} ends in neither {' nor '.join(suffixes)}: name the "
      "file to write."
    )
  if path.suffix == ".parquet" and not packages.is_installed("pyarrow"):
    raise errors.MissingPackageError(
      f"--output={given} needs pyarrow, which is not installed: pip install "
      f"'paws_jax[parquet]', or write {plain}."
    )
  for written in (path, path.with_name(f"{path.name}{_PART}")):
    files.check_writable(
      written,
      "give yourself the right to write there, or name another file with "
      f"--output=FILE{plain}",
    )
  if path.exists() and not _settings(path).exists():
    raise errors.InputError(
      f"--output={path} is there and was not written by this task (no "
      f"{_settings(path).name} is beside it): choose another file, or move it "
      "away."
    )
  _stored(path)
  return path


class RowsFile(abc.ABC):
  """Appends rows to a file, after those of an earlier run; a context manager.

  A subclass says how rows become a file that cannot grow.

  Attributes:
    outcome: what happens to an image: "predicted".
    done: names of the images that have a row.
    unreadable: (name, reason) of images of this run that cannot be read.
    notice: what became of an earlier file, for the user; "": nothing to say.
  """

  outcome: str

  def __init__(
    self,
    path: pathlib.Path,
    header: Sequence[str],
    about: Mapping[str, Any],
    *,
    images: Collection[str] = (),
  ):
    """Opens the file, and takes over its rows if they are of the same kind.

    Args:
      path: of `check_path`.
      header: names of the columns.
      about: which classifier, which images; JSON-serializable.
      images: names of all; a crash may have cut off a row of one of them.

    Raises:
      errors.WorkdirError: when another process is writing it, or when what
        says of what the rows are is damaged.
      OSError: when it cannot be written.
    """
    self.path, self._header = path, list(header)
    self.done: set[str] = set()
    self.notice = ""
    self.unreadable: list[tuple[str, str]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    self._strict = path.suffix != ".csv"
    self._rows = path
    if self._strict:
      self._rows = path.with_name(f"{path.name}{_PART}")
    about = {**about, "columns": self._header}
    with contextlib.ExitStack() as stack:
      stack.enter_context(_locked(path))
      self._set_aside_others(about)
      # First, as rows without it would be refused as another's.
      files.replace_output(_settings(path), files.to_json(about))
      if self._strict and path.exists() and not self._rows.exists():
        wrong = self._reopen(path, self._rows)
        if wrong:
          self._set_aside([path], wrong)
      self._take_over(frozenset(images))
      self._file = stack.enter_context(self._rows.open("ab"))
      self._opened = stack.pop_all()

  @abc.abstractmethod
  def _convert(self, source: pathlib.Path, target: pathlib.Path) -> None:
    """Writes the rows of a CSV file to one that cannot grow, atomically."""

  @abc.abstractmethod
  def _reopen(self, source: pathlib.Path, target: pathlib.Path) -> str:
    """Copies rows back to a CSV file, so that more can be added.

    Returns:
      Why there is nothing to copy; "": the rows are copied.
    """

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *unused: Any) -> None:
    # Before the lock is given back.
    if self._strict and not self.done:
      self._file.close()
      self._rows.unlink(missing_ok=True)
    self._opened.close()

  def write(self, new: Iterable[list[str]]) -> None:
    """Appends rows; they are on their way to the disk when this returns."""
    rows = list(new)
    self._file.write(csv_rows.encode(rows))
    self._file.flush()
    self.done.update(row[0] for row in rows)

  def add_unreadable(self, bad: Mapping[str, str]) -> None:
    """Notes images that could not be read, and why."""
    self.unreadable += bad.items()

  def finish(self) -> pathlib.Path | None:
    """Writes what is written at the end.

    Returns:
      Path of the list of the unreadable images; None when there are none.
    """
    if self._rows != self.path:
      self._file.flush()
      files.keep_foreign(self.path)
      self._convert(self._rows, self.path)
      files.record(self.path)
      self._rows.unlink()
    return self.list_unreadable()

  def list_unreadable(self) -> pathlib.Path | None:
    """Writes the list of the unreadable images; see `finish`."""
    listed = self.path.with_name(f"{self.path.stem}.unreadable.csv")
    if not self.unreadable:
      files.remove_output(listed)
      return None
    rows = [("path", "reason"), *self.unreadable]
    files.replace_output(listed, csv_rows.encode(rows))
    return listed

  def _set_aside_others(self, about: Mapping[str, Any]) -> None:
    """Renames rows that are of another classifier, layer or other images."""
    stored = _stored(self.path)
    if stored not in (None, about):
      there = {self.path, self._rows}
      self._set_aside(
        sorted(path for path in there if path.exists()),
        f"its rows are of {_differing(stored, about)}",
      )

  def _set_aside(self, paths: Sequence[pathlib.Path], reason: str) -> None:
    """Renames files and says so."""
    moved = [f"{path.name} is now {self._rename(path).name}" for path in paths]
    if moved:
      self.notice = f"{self.path.name}: {reason}; {', '.join(moved)}"

  def _rename(self, path: pathlib.Path) -> pathlib.Path:
    return path.rename(files.free_name(path, self.path.stem))

  def _take_over(self, images: Collection[str]) -> None:
    """Keeps the complete rows; of a changed file in a new one."""
    source, found = self._rows, csv_rows.Contents(set())
    if source.exists():
      with source.open("rb") as file:
        found = csv_rows.inspect(
          file, self._header, images, strict=self._strict
        )
    if found.wrong:
      source = self._rename(source)
      self.notice = (
        f"{self._rows.name} is not as this task writes it ({found.wrong}): it "
        f"is now {source.name}, and {len(found.names):,} of its rows are "
        f"copied from there; other images are {self.outcome} again"
      )
      self._copy(source, found)
    elif found.end:
      if found.end < source.stat().st_size:
        os.truncate(source, found.end)
    else:
      self._rows.write_bytes(csv_rows.encode([self._header]))
    self.done = found.names

  def _copy(self, source: pathlib.Path, found: csv_rows.Contents) -> None:
    """Writes the complete rows of a file that was renamed."""
    with (
      csv_rows.replacement(self._rows) as path,
      source.open("rb") as old,
      path.open("wb") as new,
    ):
      new.write(csv_rows.encode([self._header]))
      if found.end:
        for row in csv_rows.rows(old, self._header, strict=self._strict):
          new.write(csv_rows.encode([row]))


def _differing(stored: Mapping[str, Any], about: Mapping[str, Any]) -> str:
  """What is another one in two descriptions of rows."""
  names = [n for n in about if stored.get(n) != about[n]]
  # The columns follow from the classifier.
  named = [_OTHERS[name] for name in names if name in _OTHERS]
  return " and ".join(named) or "another kind"


def _settings(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f"{path.name}.json")


def _stored(path: pathlib.Path) -> dict[str, Any] | None:
  """Reads the settings of the rows; None where there are none."""
  settings = _settings(path)
  try:
    stored = json_text.parse(files.read_bytes(settings))
  except FileNotFoundError:
    return None
  except OSError as error:
    raise errors.WorkdirError(
      f"{settings} cannot be read ({error.strerror or error}): move it and "
      f"{path.name} away, or choose another --output."
    ) from None
  except ValueError as error:
    raise errors.WorkdirError(
      f"{settings} is not JSON ({error}): move it and {path.name} away, or "
      "choose another --output."
    ) from None
  if not isinstance(stored, dict):
    raise errors.WorkdirError(
      f"{settings} is not a JSON object: move it and {path.name} away, or "
      "choose another --output."
    )
  return stored


@contextlib.contextmanager
def _locked(path: pathlib.Path) -> Iterator[None]:
  """Keeps other processes from writing; the lock's file is removed."""
  place = path.with_name(f".{path.name}.lock")
  with contextlib.ExitStack() as stack:
    while True:
      file = stack.enter_context(place.open("ab"))
      try:
        locks.hold(file.fileno(), wait=False)
      except BlockingIOError:
        raise errors.WorkdirError(
          f"{path} is being written by another process: let it end, or choose "
          "another --output."
        ) from None
      # One that has ended since it was opened has removed it.
      with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.fstat(file.fileno()), place.stat()):
          break
    # Where open files cannot be removed, it stays.
    stack.callback(_remove, place)
    yield


def _remove(path: pathlib.Path) -> None:
  with contextlib.suppress(OSError):
    path.unlink()
