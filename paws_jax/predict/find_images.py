"""Which images `--images` and `--add_class` mean."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.data.sources import folders
from paws_jax.data.sources import listed_files
from paws_jax.data.sources import system_folders
from paws_jax.runs import files as files_lib

_LABEL = "label"


@dataclasses.dataclass(frozen=True)
class ImageFiles:
  """Images to be read, each once.

  Attributes:
    given: the absolute path of what was given.
    root: directory that the names are relative to.
    names: of each; `path` opens it.
    notices: lines for the user, such as what is left aside.
    forms: paths of those that the disk has in another Unicode form, by name.
    labels: what the column `label` of a table says of each, where it does.
  """

  given: str
  root: str
  names: tuple[str, ...]
  notices: tuple[str, ...] = ()
  forms: Mapping[str, str] = dataclasses.field(default_factory=dict)
  labels: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def __len__(self) -> int:
    """Number of images."""
    return len(self.names)

  def path(self, name: str) -> str:
    """Where an image lies."""
    return os.path.join(self.root, self.forms.get(name, name))


def find(flag: str, given: str) -> ImageFiles:
  """Lists the images of a command line; opens none of them.

  A directory gives the files in it, at any depth, that end like images; hidden
  ones and `system_folders` aside, symbolic links followed. A CSV file gives
  what its column of paths (`listed_files.IMAGE_COLUMNS`) names, relative to the
  CSV file. Any other file is an image.

  Args:
    flag: for messages: "--images".
    given: the path.

  Raises:
    FileNotFoundError: nothing is there.
    ValueError: a directory without images, or a CSV file that is none.
  """
  path = os.path.expanduser(given)
  where = f"{flag}={given}"
  if os.path.isdir(path):
    return _from_directory(where, path)
  if not os.path.exists(path):
    raise errors.MissingFileError(
      f"{where}: there is no such directory or file."
    )
  if path.lower().endswith(".csv"):
    return _from_csv(where, path)
  return ImageFiles(given=os.path.abspath(path), root=os.curdir, names=(path,))


def _from_directory(where: str, top: str) -> ImageFiles:
  names: list[str] = []
  unreadable: list[OSError] = []
  others: collections.Counter[str] = collections.Counter()
  left_aside = system_folders.SystemFolders(folders.SUFFIXES)
  for folder, files in _walk(top, unreadable, left_aside):
    below = os.path.relpath(folder, top)
    for name in files:
      suffix = os.path.splitext(name)[1].lower()
      if suffix in folders.SUFFIXES:
        names.append(os.path.normpath(os.path.join(below, name)))
      else:
        others[suffix] += 1
  closed = [
    f"folder {text_lib.printable(error.filename)} cannot be read "
    f"({error.strerror}), and no image of it is used: give yourself the right "
    "to, or leave it out"
    for error in unreadable
  ]
  if closed and not names:
    raise errors.InputError(
      f"{where} holds no image that is seen: {closed[0]}."
    )
  if not names:
    raise errors.InputError(
      f"{where} holds no image, but {others.total()} other files: add "
      f"images ({', '.join(folders.SUFFIXES)}), or give another directory."
      + "".join(f" {line}." for line in left_aside.notices())
    )
  notices = (*closed, *folders.notices(others), *left_aside.notices())
  return ImageFiles(
    given=os.path.abspath(top),
    root=top,
    names=tuple(sorted(names)),
    notices=notices,
  )


def _walk(
  top: str, unreadable: list[OSError], left_aside: system_folders.SystemFolders
) -> Iterator[tuple[str, list[str]]]:
  """Yields each real directory once, so that loops of links end.

  Errors of those that cannot be read are appended to `unreadable`; system
  folders are added to `left_aside`, and not entered.
  """
  entered = set()
  walk = os.walk(top, onerror=unreadable.append, followlinks=True)
  for folder, below, files in walk:
    visible = [name for name in sorted(below) if not name.startswith(".")]
    below.clear()
    try:
      status = os.stat(folder)
    except OSError as error:
      # It has vanished since it was listed.
      unreadable.append(error)
      continue
    place = (status.st_dev, status.st_ino)
    if place in entered:
      continue
    below += left_aside.without(folder, visible)
    entered.add(place)
    hidden = system_folders.is_hidden_file
    yield folder, [name for name in files if not hidden(name)]


def _from_csv(where: str, path: str) -> ImageFiles:
  try:
    text = listed_files.read_table(path, where).decode("utf-8-sig")
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    root = table_root(path)
    rows = [(listed_name(root, f), label) for f, label in _rows(where, table)]
  except UnicodeDecodeError as error:
    raise errors.InputError(
      f"{where} is not UTF-8 ({error.reason}): save the table as CSV in UTF-8."
    ) from None
  except csv.Error as error:
    raise errors.InputError(
      f"{where} is no CSV ({error}): close each quote, and write a quote "
      "inside of a quoted field twice."
    ) from None
  if not rows:
    raise errors.InputError(f"{where} lists no image: write one path a line.")
  # Of a path that is listed twice one row is enough.
  once = tuple(dict.fromkeys(name for name, _ in rows))
  repeated = len(rows) - len(once)
  disk = listed_files.NameForms()
  forms = {name: disk.find(root, name) for name in once if not name.isascii()}
  notices = system_folders.warnings(once)
  notices += notices_of_paths(root, once)
  if repeated:
    notices.append(f"paths listed more than once: {repeated:,}")
  labels = dict(sorted((name, label) for name, label in rows if label))
  several = {
    name for name, label in rows if label not in ("", labels.get(name))
  }
  if several:
    notices.append(
      "paths listed with several labels, of which none is used: "
      + text_lib.first_few(map(repr, sorted(several)))
    )
  return ImageFiles(
    given=os.path.abspath(path),
    root=root,
    names=once,
    notices=tuple(notices),
    forms=forms,
    labels={n: label for n, label in labels.items() if n not in several},
  )


def notices_of_paths(root: str, names: Iterable[str]) -> list[str]:
  """Names the cause where images do not exist, if their paths show one."""
  hint = listed_files.hint(
    name
    for name in names
    if listed_files.hint([name])
    and not os.path.lexists(os.path.join(root, name))
  )
  return [f"some images do not exist.{hint}"] if hint else []


def table_root(path: str) -> str:
  """Directory that the paths of a table are relative to.

  That of the table; or, if it holds predictions, of the images predicted.
  """
  seen = set()
  while path not in seen:
    seen.add(path)
    try:
      about = files_lib.read_object(pathlib.Path(f"{path}.json")) or {}
    except (errors.WorkdirError, OSError):
      break
    images = about.get("images")
    if not isinstance(images, str) or "columns" not in about:
      break
    if os.path.isdir(images):
      return images
    if not images.lower().endswith(".csv"):
      break
    path = images
  return os.path.dirname(path)


def listed_name(root: str, field: str) -> str:
  """The path that a field means, of `text.escape` or as it stands."""
  plain = field.strip()
  ways = [*map(text_lib.unescape, (field, plain)), field, plain]
  if len(set(ways)) > 1:
    # A name may begin with a space, and hold what looks like a notation.
    for way in ways:
      if os.path.lexists(os.path.join(root, way)):
        return way
  return plain


def _rows(where: str, table: Iterator[list[str]]) -> Iterator[tuple[str, str]]:
  """The path and label ("" without) of each line."""
  header = [name.strip().casefold() for name in next(table, [])]
  place = listed_files.image_column(header)
  if place is None:
    raise errors.InputError(
      f"{where} has no column {' or '.join(listed_files.IMAGE_COLUMNS)}, but "
      f"{listed_files.shown(header)}: name the columns in the first line, with "
      "commas between them." + listed_files.header_hint(header)
    )
  of_label = header.index(_LABEL) if _LABEL in header else len(header)
  for number, fields in enumerate(table, 2):
    if not any(field.strip() for field in fields):
      # Spreadsheets end a table with lines of commas only.
      continue
    if len(fields) <= place or not fields[place].strip():
      raise errors.InputError(
        f"{where}: row {number} has no {header[place]}: fill it in, or remove "
        "the row."
      )
    yield fields[place], "".join(fields[of_label : of_label + 1]).strip()
