"""Tables of predictions and of suggestions, with the files that rows are of."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Mapping
from collections.abc import Sequence

from paws_jax import errors
from paws_jax import packages
from paws_jax import text
from paws_jax.data.sources import listed_files
from paws_jax.predict import find_images
from paws_jax.runs import files

# Of predictions, and of label_next.csv.
_CLASS_COLUMNS = ("predicted_class", "suggested_class")


@dataclasses.dataclass(frozen=True)
class Row:
  """A prediction.

  Attributes:
    name: of the image, as the table has it.
    file: its absolute path.
    predicted_class: the most probable class.
    probability: of it.
    fields: all columns.
  """

  name: str
  file: str
  predicted_class: str
  probability: float
  fields: Mapping[str, str]

  def number(self, column: str) -> float:
    """The number in a column."""
    return float(self.fields[column])


def read(
  path: str | os.PathLike[str], *, images_dir: str | os.PathLike[str] | None
) -> list[Row]:
  """Reads what `--task=predict` or `--task=report` has written.

  Args:
    path: of predictions.csv, predictions.parquet or label_next.csv.
    images_dir: directory that the paths in it are relative to; None: that of
      the images predicted, or else that of the table. For label_next.csv it is
      `data.dir` of the run.

  Raises:
    MissingFileError: the table or images do not exist.
    InputError: it is no such table; names the row.
    MissingPackageError: when pyarrow is missing, for a Parquet file.
  """
  file = files.resolve(path)
  if not file.exists():
    raise errors.MissingFileError(f"{file}: there is no such table.")
  records = _parquet(file) if file.suffix == ".parquet" else _csv(file)
  root = images_dir or find_images.table_root(str(file))
  rows = [
    _row(f"{file}, row {number}", record, os.fspath(root))
    for number, record in enumerate(records, 2)
  ]
  if not rows:
    raise errors.InputError(f"{file} has no row: predict images first.")
  check_files(
    f"{file}", {row.name: row.file for row in rows}, root, argument="images_dir"
  )
  return rows


def check_files(
  where: str,
  paths: Mapping[str, str],
  root: str | os.PathLike[str],
  *,
  argument: str,
) -> None:
  """Refuses images that do not exist.

  Args:
    where: for the message.
    paths: of the images, by their names.
    root: directory that the names are relative to.
    argument: name of the argument that sets it.

  Raises:
    MissingFileError: names the first few.
  """
  absent = [name for name, path in paths.items() if not os.path.isfile(path)]
  if absent:
    raise errors.MissingFileError(
      f"{where}: {len(absent)} of {len(paths)} images are not in {root}: "
      f"{text.first_few(map(repr, absent))}. Say with {argument}=DIR which "
      "directory their paths are relative to."
    )


def check_output(
  output: str | os.PathLike[str], **inputs: str | os.PathLike[str] | None
) -> None:
  """Refuses to write over what is read.

  Args:
    output: the file to write.
    **inputs: files that are read, by the names of their arguments.

  Raises:
    InputError: names the argument.
  """
  target = files.resolve(output)
  for name, given in inputs.items():
    if given is None or not target.exists():
      continue
    source = files.resolve(given)
    local = isinstance(source, pathlib.Path) and isinstance(
      target, pathlib.Path
    )
    same = local and source.exists() and os.path.samefile(source, target)
    if same or source == target:
      raise errors.InputError(
        f"output is {target}, which is also read ({name}): name another file."
      )


def write(output: str | os.PathLike[str], content: str) -> None:
  """Writes a file, and makes its directory; a changed one is kept.

  Raises:
    WorkdirError: it cannot be written.
    InputError: a text in it is half of a character.
  """
  target = files.resolve(output)
  files.check_writable(target, "name another file")
  target.parent.mkdir(parents=True, exist_ok=True)
  try:
    files.replace_output(target, content)
  except UnicodeEncodeError as error:
    raise errors.InputError(
      f"{target} is UTF-8, and a label for it is not ({error}): correct it."
    ) from None


def relative(file: str, root: str | os.PathLike[str]) -> str:
  """The path of a file relative to a directory, with "/".

  Raises:
    InputError: it is not below.
  """
  below = os.path.relpath(file, os.path.abspath(root))
  if below == os.pardir or below.startswith(os.pardir + os.sep):
    raise errors.InputError(
      f"{text.printable(file)} is not below {root}: give a directory that "
      "holds all images."
    )
  return pathlib.PurePath(below).as_posix()


def _row(where: str, record: Mapping[str, str], root: str) -> Row:
  column = next((name for name in _CLASS_COLUMNS if name in record), "")
  try:
    probability = float(record["probability"])
    field, predicted = record["path"], record[column]
  except (KeyError, TypeError, ValueError):
    raise errors.InputError(
      f"{where} has no path, class or probability, but the columns "
      f"{listed_files.shown(list(record))}: give predictions.csv or "
      "label_next.csv, as it was written."
    ) from None
  name = find_images.listed_name(root, field)
  return Row(
    name=name,
    file=os.path.abspath(os.path.join(root, name)),
    predicted_class=text.unescape(predicted),
    probability=probability,
    fields=record,
  )


def _csv(path: pathlib.Path) -> list[dict[str, str]]:
  content = listed_files.read_table(str(path), str(path))
  try:
    table = io.StringIO(content.decode("utf-8-sig"), newline="")
    records = list(csv.DictReader(table, strict=True))
  except (UnicodeDecodeError, csv.Error) as error:
    raise errors.InputError(
      f"{path} is no CSV file in UTF-8 ({error}): give it as it was written."
    ) from None
  for number, record in enumerate(records, 2):
    if None in record or None in record.values():
      raise errors.InputError(
        f"{path}, row {number} has more or fewer fields than the first row: "
        "correct it, or remove it."
      )
  return records


def _parquet(path: pathlib.Path) -> Sequence[dict[str, str]]:
  packages.require(str(path), "pyarrow")
  import pyarrow
  from pyarrow import parquet

  try:
    rows = parquet.read_table(path).to_pylist()
  except (pyarrow.ArrowException, OSError) as error:
    raise errors.InputError(
      f"{path} is no Parquet file ({text.printable(error)})."
    ) from None
  return [{name: str(value) for name, value in row.items()} for row in rows]
