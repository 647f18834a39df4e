"""Files that list the labelled images of a training set, one per line.

Entries are row numbers, or names as in the lists published with the paper
("n01440764_10026.JPEG"). Names are compared with those of the images, and never
joined to a path.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.data.sources import listed_files

_MAX_LISTED = 10
# sha256 of the lists of 1 % and 10 % of ImageNet's training images: 12,811
# images (12 or 13 per class) and 128,116. SimCLR published them, and the PAWS
# reference under the names 99percent.txt and 90percent.txt.
_PUBLISHED = {
  "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17": "1pct",
  "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091": "10pct",
}


def published_name(path: str | os.PathLike[str]) -> str | None:
  """Returns "1pct" or "10pct" for the paper's lists of ImageNet, else None.

  Raises:
    OSError: the file cannot be read.
  """
  with open(path, "rb") as file:
    return _PUBLISHED.get(hashlib.file_digest(file, "sha256").hexdigest())


def read(
  path: str | os.PathLike[str],
  *,
  num_images: int,
  names: Sequence[str] | None = None,
  root: str = "",
) -> np.ndarray:
  """Reads the rows of a training set that a file lists.

  Each line has one entry. Blank lines are ignored, and a "#" at the start of a
  line or after a space starts a comment, unless the line as it stands is a
  name. If the first entry is an integer, all entries are row numbers, counted
  from 0. Otherwise all are names of images: with a "/", the path relative to
  the data directory ("./cat/1.jpg" also counts, and an absolute path below
  it); without, the last part of the path. Names match in any Unicode form.

  Args:
    path: the file, in UTF-8.
    num_images: n, size of the training set.
    names: n names; None: the images have no names.
    root: directory of the images, for absolute paths; "": there is none.

  Returns:
    int32 [m], increasing.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: an entry is invalid, unknown or repeated; names the lines.
  """
  where = f"data.labels_file = {os.fspath(path)!r}"
  if not os.path.isfile(path):
    raise errors.MissingFileError(
      f"{where} is not a file: give the path of a list of training rows or "
      "names, one per line"
    )
  content = listed_files.read_table(path, where)
  entries = _entries(content, names or ())
  by_number = not entries or _is_integer(entries[0][1])
  find: Callable[[int, str], int | None]
  if names is None or by_number:
    find = _by_number(where, num_images, has_names=names is not None)
  else:
    find = _by_name(where, names, root)
  rows = _unique_rows(where, entries, find)
  return np.sort(np.asarray(rows, np.int32))


def _entries(content: bytes, names: Sequence[str]) -> list[tuple[int, str]]:
  """Returns (line number, text) of each line with an entry."""
  # utf-8-sig skips the mark that editors on Windows put at the start. File
  # names need not be UTF-8.
  text = content.decode("utf-8-sig", "surrogateescape")
  lines = [line.strip() for line in io.StringIO(text, newline=None)]
  # "photo #1.jpg" is one name.
  with_hash = {line for line in lines if re.search(r"\s#", line)}
  if with_hash:
    parts = {part for n in names for part in (n, n.rpartition("/")[2])}
    with_hash &= parts
  texts = (
    line if line in with_hash else re.sub(r"(^|\s)#.*", "", line).strip()
    for line in lines
  )
  return [(n, text) for n, text in enumerate(texts, start=1) if text]


def _is_integer(text: str) -> bool:
  """Whether a text is an integer; int() also accepts "1_000"."""
  return re.fullmatch(r"-?[0-9]{1,18}", text) is not None


def _unique_rows(
  where: str,
  entries: list[tuple[int, str]],
  find: Callable[[int, str], int | None],
) -> list[int]:
  """Returns the row of each entry; refuses unknown and repeated ones."""
  first_line: dict[int, int] = {}
  unknown, unknown_names = [], []
  for line, text in entries:
    row = find(line, text)
    if row is None:
      unknown.append(f"line {line}: {text!r}")
      unknown_names.append(text)
    elif row in first_line:
      kind = "index" if _is_integer(text) else "image"
      raise errors.InputError(
        f"{where}, line {line}: {kind} {text} is already in line "
        f"{first_line[row]}: remove one of the two"
      )
    else:
      first_line[row] = line
  if unknown:
    raise errors.InputError(
      f"{where} names {len(unknown)} of {len(entries)} images that are not in "
      "the training set: "
      + text_lib.first_few(unknown, most=_MAX_LISTED, separator="; ")
      + ". Correct them, or check that data.dir and the list belong together."
      + listed_files.hint(unknown_names)
    )
  return list(first_line)


def _by_number(
  where: str, num_images: int, *, has_names: bool
) -> Callable[[int, str], int]:
  """Returns a function that reads a row number."""

  def find(line: int, text: str) -> int:
    if not _is_integer(text):
      why = (
        "the first entry is a row number, so write one row number per line, or "
        "names only"
        if has_names
        else "write one row number per line"
      )
      raise errors.InputError(
        f"{where}, line {line}: {text[:40]!r} is not an integer: {why}"
      )
    if not 0 <= int(text) < num_images:
      raise errors.InputError(
        f"{where}, line {line}: index {int(text)} is out of range for "
        f"{num_images} training images: rows count from 0 to {num_images - 1}"
      )
    return int(text)

  return find


def _by_name(
  where: str, names: Sequence[str], root: str
) -> Callable[[int, str], int | None]:
  """Returns a function that finds the row of a name; None if unknown."""
  rows = {name: row for row, name in enumerate(names)}
  # Names of the same form differ in `rows`.
  by_form = listed_files.by_form(names)
  by_last: dict[str, int] = {}
  ambiguous: dict[str, int] = {}
  for row, name in enumerate(names):
    last = listed_files.in_one_form(name.rpartition("/")[2])
    if by_last.setdefault(last, row) != row:
      ambiguous[last] = row

  def find(line: int, text: str) -> int | None:
    given = text
    if text not in rows and "/" in text:
      text = os.path.normpath(text)
      text = listed_files.below(text, root) if root else text
    # label_next.csv has names that are not UTF-8 in the notation of `escape`.
    meant = text_lib.unescape(text)
    for name in (text, meant):
      if name in rows:
        return rows[name]
    text = listed_files.in_one_form(meant)
    if text in by_form:
      return by_form[text]
    if "/" in given.removeprefix("./"):
      return None
    if text in ambiguous:
      both = f"{names[by_last[text]]!r} and {names[ambiguous[text]]!r}"
      raise errors.InputError(
        f"{where}, line {line}: {text!r} may mean {both}: write paths "
        "relative to data.dir"
      )
    return by_last.get(text)

  return find
