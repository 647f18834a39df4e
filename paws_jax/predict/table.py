"""predictions.csv or .parquet: one row an image, written as they come.

Beside NAME.csv stand NAME.csv.json, which says of which classifier and of which
images the rows are, and NAME.unreadable.csv, if there are such images. Rows are
appended to a CSV file, which a crash leaves with at most one incomplete
row. A Parquet file cannot grow: its rows are kept in NAME.parquet.part, a CSV
file, until all are there.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import itertools
import json
import os
import pathlib
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


def check_path(given: str) -> pathlib.Path:
  """The path of --output, made absolute; writes nothing.

  Raises:
    ValueError: when it ends in neither .csv nor .parquet, when pyarrow is
      missing, when a file is there that this task has not written, or when
      what says of what its rows are is damaged.
  """
  if "://" in given:
    raise errors.InputError(
      f"--output={given} is in a bucket, where a file cannot grow: write to a "
      "disk, and copy it."
    )
  path = pathlib.Path(given).expanduser().absolute()
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
    self, path: pathlib.Path, header: Sequence[str], about: Mapping[str, Any]
  ):
    """Opens the file, and takes over its rows if they are of the same kind.

    Args:
      path: of `check_path`.
      header: names of the columns.
      about: which classifier, which images; JSON-serializable.

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
    is_parquet = path.suffix == ".parquet"
    self._rows = path.with_name(f"{path.name}.part") if is_parquet else path
    about = {**about, "columns": self._header}
    with contextlib.ExitStack() as stack:
      stack.enter_context(_locked(path))
      self._set_aside(about)
      # First, as rows without it would be refused as another's.
      files.replace_text(_settings(path), json.dumps(about, indent=2) + "\n")
      if is_parquet and path.exists() and not self._rows.exists():
        parquet.to_csv(path, self._rows, self._header)
      self._file = stack.enter_context(self._rows.open("a+b"))
      self._take_over()
      self._opened = stack.pop_all()

  def __enter__(self) -> PredictionsFile:
    return self

  def __exit__(self, *unused: Any) -> None:
    self._opened.close()

  def write(self, new: Iterator[list[str]]) -> None:
    """Appends rows; they are on their way to the disk when this returns."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    for row in new:
      table.writerow(row)
      self.done.add(row[0])
    self._file.write(text.getvalue().encode(**csv_rows.TEXT))
    self._file.flush()

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
      parquet.from_csv(self._rows, self.path, self._header)
      self._rows.unlink()
    return self.list_unreadable()

  def list_unreadable(self) -> pathlib.Path | None:
    """Writes the list of the unreadable images; see `finish`."""
    listed = self.path.with_name(f"{self.path.stem}.unreadable.csv")
    listed.unlink(missing_ok=True)
    if not self.unreadable:
      return None
    with listed.open("w", newline="", **csv_rows.TEXT) as file:
      table = csv.writer(file, lineterminator="\n")
      table.writerows([("path", "reason"), *self.unreadable])
    return listed

  def _set_aside(self, about: Mapping[str, Any]) -> None:
    """Renames rows that are of another classifier or of other images."""
    if _stored(self.path) in (None, about):
      return
    there = {self.path, self._rows}
    moved = []
    for path in sorted(path for path in there if path.exists()):
      before = self._free_name(path)
      path.replace(before)
      moved.append(f"{path.name} is now {before}")
    if moved:
      self.notice = (
        f"{self.path.name} is of another classifier or of other images: "
        + ", ".join(moved)
      )

  def _free_name(self, path: pathlib.Path) -> pathlib.Path:
    """NAME.old.csv, or the first of NAME.old-1.csv ... that is not there."""
    stem = self.path.stem
    ends = itertools.chain([""], (f"-{i}" for i in itertools.count(1)))
    names = (f"{stem}.old{end}{path.name[len(stem) :]}" for end in ends)
    return next(p for p in map(path.with_name, names) if not p.exists())

  def _take_over(self) -> None:
    """Keeps the complete rows."""
    self._file.seek(0)
    end = 0
    for stop, fields in csv_rows.complete_rows(self._file, len(self._header)):
      if end == 0 and fields != self._header:
        break
      if end:
        self.done.add(fields[0])
      end = stop
    self._file.truncate(end)
    self._file.seek(0, os.SEEK_END)
    if not end:
      header = io.StringIO()
      csv.writer(header, lineterminator="\n").writerow(self._header)
      self._file.write(header.getvalue().encode(**csv_rows.TEXT))


def _settings(path: pathlib.Path) -> pathlib.Path:
  return path.with_name(f"{path.name}.json")


def _stored(path: pathlib.Path) -> dict[str, Any] | None:
  """What the rows are of; None when nothing says so."""
  settings = _settings(path)
  try:
    stored = json_text.parse(settings.read_bytes())
  except FileNotFoundError:
    return None
  except ValueError as error:
    raise errors.WorkdirError(
      f"{settings} is not JSON ({error}): move it and {path.name} away, or "
      "choose another --output."
    ) from None
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
