"""The visible images below a folder, and the other files among them."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
from collections.abc import Iterator
from typing import Any
from typing import TypeAlias

from paws_jax import errors
from paws_jax import text
from paws_jax.data.sources import system_folders

SUFFIXES = (
  *(".jpg", ".jpeg", ".jpe", ".jfif"),
  *(".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)
# Device and inode of a directory, and numbers of files by their suffix.
Identity: TypeAlias = tuple[int, int]
Counts: TypeAlias = collections.Counter[str]


@dataclasses.dataclass(frozen=True)
class Exclusions:
  """What is not read among images.

  Attributes:
    directories: those that are not entered.
    system: folders made by systems, found so far.
    other_files: files in other formats, found so far.
  """

  directories: frozenset[Identity] = frozenset()
  system: system_folders.SystemFolders = dataclasses.field(
    default_factory=lambda: system_folders.SystemFolders(SUFFIXES)
  )
  other_files: Counts = dataclasses.field(default_factory=collections.Counter)

  def fields(self) -> dict[str, Any]:
    """Returns the fields of a `catalog.Catalog` that report them."""
    return {
      "other_files": dict(self.other_files),
      "notices": tuple(self.system.notices()),
    }


def identity(directory: str) -> Identity:
  """Returns what a directory is known by, whatever path leads to it."""
  with _refusing(directory):
    status = os.stat(directory)
  return status.st_dev, status.st_ino


@contextlib.contextmanager
def _refusing(directory: str) -> Iterator[None]:
  """Refuses a folder that cannot be read: images would be missing."""
  try:
    yield
  except OSError as error:
    raise errors.InputError(
      f"the folder {text.printable(directory)!r} cannot be read "
      f"({error.strerror or error}): give yourself the right to, or move it "
      "out of the data"
    ) from error


def find_images(
  top: str, root: str, exclusions: Exclusions
) -> tuple[list[str], Counts, dict[Identity, str]]:
  """Lists the images below a directory.

  Args:
    top: the directory.
    root: directory to which paths are relative.
    exclusions: their directories are not entered, except `top` itself; what is
      found is added.

  Returns:
    The sorted paths; the number of other files by suffix; and the directories
    entered.
  """
  paths: list[str] = []
  other_files: Counts = collections.Counter()
  entered: dict[Identity, str] = {}
  closed = exclusions.directories - {identity(top)}
  waiting = [top]
  while waiting:
    folder = waiting.pop()
    place = identity(folder)
    if place in closed or place in entered:
      continue
    folders, images, others = scan(folder, exclusions.system)
    other_files.update(map(suffix, others))
    below = entered[place] = os.path.relpath(folder, root)
    paths += [os.path.join(below, name) for name in images]
    # Of two paths to the same directory, the first in this order counts.
    waiting += [
      os.path.join(folder, name) for name in sorted(folders, reverse=True)
    ]
  exclusions.other_files.update(other_files)
  return sorted(paths), other_files, entered


def suffix(name: str) -> str:
  """Returns the end of a file name in lower case: ".jpg"."""
  return os.path.splitext(name)[1].lower()


def scan(
  directory: str, left_aside: system_folders.SystemFolders
) -> tuple[list[str], list[str], list[str]]:
  """Lists the visible folders, images and other files in a directory."""
  folders: list[str] = []
  images: list[str] = []
  others: list[str] = []
  with _refusing(directory), os.scandir(directory) as entries:
    for entry in entries:
      if entry.name.startswith("."):
        continue
      # entry.is_dir() raises for a link to itself.
      is_folder = (
        os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
      )
      if not is_folder and system_folders.is_hidden_file(entry.name):
        continue
      # A dangling link counts as an image: reading it gives an error.
      is_image = suffix(entry.name) in SUFFIXES
      kind = folders if is_folder else images if is_image else others
      kind.append(entry.name)
  return left_aside.without(directory, folders), images, others
