"""Files that a table or a list of a user names, however they are written."""

from __future__ import annotations

import collections
import os
import unicodedata
from collections.abc import Iterable
from collections.abc import Sequence

from paws_jax import text

# Names of the column with the paths, in tables of all kinds.
IMAGE_COLUMNS = ("path", "image", "file", "filename", "file_name")


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


def windows_hint(paths: Iterable[str]) -> str:
  r"""Returns a sentence about paths with the separator of Windows, or ""."""
  found = next((path for path in paths if "\\" in path), None)
  if found is None:
    return ""
  return (
    f" {found!r} looks like a path of Windows: write / where it has \\, and "
    "no drive such as C:."
  )


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

  def __init__(self):
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
