"""predictions.csv or .parquet: one row an image, written as they come.

Beside NAME.csv stand NAME.csv.json, which says of which classifier and of which
images the rows are, and NAME.unreadable.csv, if there are such images. Rows are
appended to a CSV file, which a crash leaves with at most one incomplete
row. A Parquet file cannot grow: its rows are kept in NAME.parquet.part, a CSV
file, until all are there. Of a file that somebody has changed only that
incomplete row is ever dropped: all else stays in it, or in NAME.old.csv.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pathlib
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax import errors
from paws_jax import json_text
from paws_jax.classifier import predictions as predictions_lib
from paws_jax.predict import csv_rows
from paws_jax.predict import parquet
from paws_jax.runs import files
from paws_jax.runs import locks

NUM_SUPPORTS = 3
_NUM_TOP = 5
# The rows of a Parquet file until all are there.
_PART = ".part"


def check_path(given: str) -> pathlib.Path:
  """The path of --output, made absolute; writes nothing.

  Raises:
    ValueError: when it ends in neither .csv nor .parquet, when pyarrow is
      missing, when a file is there that this task has not written, when it
      cannot be written, or when what says of what its rows are is damaged.
  """
  if "://" in given:
    raise errors.InputError(
      f"--output={given} is in a bucket, where a file cannot grow: write to a "
      "disk, and copy it."
    )
  path = files.resolve(given)
  if path.suffix not in (".csv", ".parquet"):
    raise errors.InputError(
      f"--output={given} ends in neither .csv nor .parquet: name the file to "
      "write."
    )
  if path.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
    raise errors.InputError(
      f"--output={given} needs pyarrow, which is not installed: pip install "
      "'paws_jax[parquet]', or write .csv."
    )
  for written in (path, path.with_name(f"{path.name}{_PART}")):
    files.check_writable(
      written,
      "give yourself the right to write there, or name another file with "
      "--output=FILE.csv",
    )
  if path.exists() and not _settings(path).exists():
    raise errors.InputError(
      f"--output={path} is there and was not written by this task (no "
      f"{_settings(path).name} is beside it): choose another file, or move it "
      "away."
    )
  _stored(path)
  return path


def columns(
  num_classes: int, num_supports: int, *, in_domain: bool = False
) -> list[str]:
  """Names of the columns.

  Args:
    num_classes: of the classifier; of more than five, the first five stand.
    num_supports: of the bank; of more than three, the first three stand.
    in_domain: whether the classifier says it.
  """
  names = ["path", "predicted_class", "probability"]
  for k in range(1, min(num_classes, _NUM_TOP) + 1):
    names += [f"top{k}_class", f"top{k}_probability"]
  names += ["entropy", "novelty"] + ["in_domain"] * in_domain
  for k in range(1, min(num_supports, NUM_SUPPORTS) + 1):
    names += [f"support_{k}", f"support_{k}_class", f"support_{k}_weight"]
  return names


def rows(
  names: Sequence[str],
  predictions: predictions_lib.Predictions,
  classifier: Any,
) -> Iterator[list[str]]:
  """The rows of a batch.

  Args:
    names: of its images.
    predictions: of them.
    classifier: `classifier.Classifier`.
  """
  classes, support_bank = classifier.class_names, classifier.support_bank
  best = (-predictions.probabilities).argsort(axis=-1, kind="stable")
  for i, name in enumerate(names):
    chances = predictions.probabilities[i]
    chosen = predictions.classes[i]
    row = [name, classes[chosen], csv_rows.number(chances[chosen])]
    for k in best[i, :_NUM_TOP]:
      row += [classes[k], csv_rows.number(chances[k])]
    row += [
      csv_rows.number(predictions.entropy[i]),
      csv_rows.number(predictions.novelty[i]),
    ]
    if predictions.in_domain is not None:
      row.append(csv_rows.number(predictions.in_domain[i]))
    for support, weight in zip(
      predictions.support_indices[i],
      predictions.support_weights[i],
      strict=True,
    ):
      label = support_bank.labels[support]
      row += [
        support_bank.names[support],
        classes[label],
        csv_rows.number(weight),
      ]
    yield row


class PredictionsFile:
  """Appends rows to a file, after those of an earlier run; a context manager.

  Attributes:
    done: names of the images that have a row.
    unreadable: (name, reason) of images of this run that cannot be read.
    notice: what became of an earlier file, for the user; "": nothing to say.
  """

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
    self._strict = path.suffix == ".parquet"
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
        wrong = parquet.to_csv(path, self._rows, self._header)
        if wrong:
          self._set_aside([path], wrong)
      self._take_over(frozenset(images))
      self._file = stack.enter_context(self._rows.open("ab"))
      self._opened = stack.pop_all()

  def __enter__(self) -> PredictionsFile:
    return self

  def __exit__(self, *unused: Any) -> None:
    self._opened.close()

  def write(self, new: Iterator[list[str]]) -> None:
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
      parquet.from_csv(self._rows, self.path, self._header)
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
    """Renames rows that are of another classifier or of other images."""
    if _stored(self.path) not in (None, about):
      there = {self.path, self._rows}
      self._set_aside(
        sorted(path for path in there if path.exists()),
        "its rows are of another classifier or of other images",
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
        "copied from there; other images are predicted again"
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
    temporary = self._rows.with_name(f".{self._rows.name}.tmp")
    with source.open("rb") as old, temporary.open("wb") as new:
      new.write(csv_rows.encode([self._header]))
      if found.end:
        for row in csv_rows.rows(old, self._header, strict=self._strict):
          new.write(csv_rows.encode([row]))
    os.replace(temporary, self._rows)


def _settings(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f"{path.name}.json")


def _stored(path: pathlib.Path) -> dict[str, Any] | None:
  """What the rows are of; None when nothing says so."""
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
  """Keeps other processes from writing; in a file that is never replaced."""
  with path.with_name(f".{path.name}.lock").open("ab") as file:
    try:
      locks.hold(file.fileno(), wait=False)
    except BlockingIOError:
      raise errors.WorkdirError(
        f"{path} is being written by another process: let it end, or choose "
        "another --output."
      ) from None
    yield
