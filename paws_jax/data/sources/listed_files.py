"""Files that a table or a list of a user names, however they are written."""

from __future__ import annotations

import collections
import os
import re
import unicodedata
from collections.abc import Iterable
from collections.abc import Sequence

from paws_jax import errors
from paws_jax import text
from paws_jax.runs import files as files_lib

# Names of the column with the paths, in tables of all kinds.
IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name")
# First bytes of files that are taken for tables or lists.
_NO_TEXTS = (
  (b"\xff\xfe", "UTF-16"),
  (b"\xfe\xff", "UTF-16"),
  (b"\0\0\xfe\xff", "UTF-32"),
  (b"PK\x03\x04", "a spreadsheet or an archive"),
  (b"\xd0\xcf\x11\xe0", "a spreadsheet"),
  (b"\x1f\x8b", "compressed"),
)
_FIRST_BYTES = 2**16
# A scheme, and one slash, as paths are when they have been normalized.
_ADDRESS = re.compile("[a-z][a-z0-9+.-]+:/", re.IGNORECASE)


def read_table(path: str | os.PathLike[str], where: str) -> bytes:
  """Reads a list or table of the user.

  Args:
    path: a local file.
    where: the field or flag that names it, for messages.

  Raises:
    InputError: it cannot be read, is not a regular file, or is no text of one
      byte a letter.
  """
  try:
    content = files_lib.read_bytes(path)
  except OSError as error:
    raise errors.InputError(
      f"{where} cannot be read ({error.strerror or error}): give another file, "
      "or make it readable."
    ) from error
  kind = next((k for start, k in _NO_TEXTS if content.startswith(start)), "")
  # UTF-16 may come without a mark.
  if not kind and b"\0" in content[:_FIRST_BYTES].partition(b"\n")[0]:
    kind = "UTF-16 or binary"
  if kind:
    raise errors.InputError(
      f"{where} is not UTF-8 but {kind}: save it as CSV, or as text, in UTF-8."
    )
  return content


def image_column(header: Iterable[str]) -> int | None:
  """Returns the place of the column with the paths; None: there is none.

  Names count in any case. Of several columns the first of `IMAGE_COLUMNS` wins.
  """
  names = [name.strip().casefold() for name in header]
  return next((names.index(n) for n in IMAGE_COLUMNS if n in names), None)


def in_one_form(name: str) -> str:
  """Returns a name in Unicode's composed form (NFC), in which equal names are.

  macOS writes an accented letter as two characters, Linux and Windows as one.
  """
  return name if name.isascii() else unicodedata.normalize("NFC", name)


def by_form(names: Sequence[str]) -> dict[str, int]:
  """Returns the place of each name by its form; without forms of several."""
  forms = [in_one_form(name) for name in names]
  counts = collections.Counter(forms)
  return {form: i for i, form in enumerate(forms) if counts[form] == 1}


def below(path: str, root: str) -> str:
  """Returns an absolute path relative to a directory that it lies in.

  Relative paths, and those that lie elsewhere, are returned as they are. Links
  in either of the two are followed.
  """
  if not os.path.isabs(path) or "\0" in path:
    return path
  folder, name = os.path.split(path)
  for top, place in (
    (os.path.abspath(root), os.path.normpath(folder)),
    (os.path.realpath(root), os.path.realpath(folder)),
  ):
    if place == top or place.startswith(top.rstrip(os.sep) + os.sep):
      return os.path.normpath(os.path.join(os.path.relpath(place, top), name))
  return path


def hint(paths: Iterable[str]) -> str:
  """Returns a sentence about the first path of a known wrong kind, or ""."""
  for path in paths:
    cause = _cause(path)
    if cause:
      return f" {text.printable(path)!r} {cause}."
  return ""


def _cause(path: str) -> str:
  """Returns why a path is none here; "" where nothing is known."""
  if _ADDRESS.match(path):
    return (
      "looks like an address (URL): copy the files to a disk, and write their "
      "paths"
    )
  if "\\" in path or re.match("[A-Za-z]:/", path):
    return (
      "looks like a path of Windows: write / where it has \\, and no drive "
      "such as C:"
    )
  if path.startswith("~"):
    return "begins with ~, which tables and lists do not know: write it out"
  if path.strip("\"' \xa0\u201c\u201d\u2018\u2019") != path:
    return "begins or ends with a space or a quote: remove it"
  return ""


def shown(header: Sequence[str]) -> list[str]:
  """Returns the names of columns for a message, if need be the first few."""
  return [text.printable(name, most=40) for name in header[:20]]


def header_hint(header: Sequence[str]) -> str:
  """Returns a sentence about the first line of a table, or ""."""
  first = header[0] if header else ""
  if first.casefold().startswith("sep="):
    return (
      f" The line {text.printable(first, most=10)!r} is for spreadsheets: "
      "remove it, and separate columns by commas."
    )
  if first.startswith("\ufeff"):
    return " The file begins with two byte order marks: remove one."
  found = [mark for mark in (";", "\t", "|") if mark in first]
  if len(header) == 1 and found:
    return f" They seem to be separated by {found[0]!r}: use commas."
  return ""


def unescaped(root: str, path: str) -> str:
  r"""Returns a path with the bytes that `text.escape` has written as "\xe9".

  A path that is there as it is written, or not there in either way, is returned
  as it is.
  """
  if "\\" not in path or os.path.lexists(os.path.join(root, path)):
    return path
  meant = text.unescape(path)
  return meant if os.path.lexists(os.path.join(root, meant)) else path


class NameForms:
  """Finds files whose names on the disk have another Unicode form."""

  def __init__(self) -> None:
    """Starts without knowledge; each folder is listed once."""
    # By folder, the only name of each form.
    self._names: dict[str, dict[str, str]] = {}

  def find(self, root: str, path: str) -> str:
    """Returns the path as it is on the disk, or `path` if nothing fits.

    See also `unescaped`.

    Args:
      root: a directory.
      path: relative to it, or absolute; need not exist.
    """
    path = unescaped(root, path)
    if path.isascii() or os.path.lexists(os.path.join(root, path)):
      return path
    place = os.path.join(root, os.sep) if os.path.isabs(path) else root
    for name in path.split(os.sep):
      if name.isascii() or os.path.lexists(os.path.join(place, name)):
        place = os.path.join(place, name)
        continue
      alike = self._list(place).get(in_one_form(name))
      if alike is None:
        return path
      place = os.path.join(place, alike)
    if os.path.isabs(path):
      return place
    return os.path.normpath(os.path.relpath(place, root))

  def _list(self, folder: str) -> dict[str, str]:
    """Returns the names in a folder by their composed form."""
    if folder not in self._names:
      try:
        listed = os.listdir(folder)
      except (OSError, ValueError):
        # Of a path with a zero byte, a ValueError.
        listed = []
      places = by_form(listed)
      self._names[folder] = {form: listed[i] for form, i in places.items()}
    return self._names[folder]
