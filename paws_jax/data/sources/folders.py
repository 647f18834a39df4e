"""Images in folders named after their classes: root/class_name/*.jpg.

Symbolic links are followed, so that a folder can be put together out of others;
each real directory is read once below a class, so that loops end.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Mapping
from typing import NamedTuple
from typing import TypeAlias

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.data.sources import catalog

SUFFIXES = (
  *(".jpg", ".jpeg", ".jpe", ".jfif"),
  *(".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)
# Images that are not read: of phones, of cameras, and of some programs.
_UNREAD = frozenset(
  (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    *(".psd", ".svg", ".ico", ".tga", ".ppm", ".pgm", ".pnm", ".exr", ".dcm"),
  )
)
_MAX_LISTED = 10
# Device and inode of a directory, and numbers of files by their suffix.
_Place: TypeAlias = tuple[int, int]
_Counts: TypeAlias = collections.Counter[str]
_LAYOUT = (
  f"expected are images ({', '.join(SUFFIXES)}) in one folder per class, as in "
  "data.dir/cat/1.jpg and data.dir/dog/7.png"
)


def load(
  directory: str, *, unlabelled_dir: str, test_dir: str
) -> catalog.Catalog:
  """Lists a folder of images; opens none of them.

  Images are files that end in one of `SUFFIXES`, in any case. They may lie
  deeper below their class; what is hidden (".name") and other files are left
  aside, the latter counted. Classes, and images by their paths, are sorted by
  name.

  Args:
    directory: holds one folder per class.
    unlabelled_dir: holds unlabelled images, in any arrangement; relative to
      `directory` or absolute, inside it or not. "": there are none.
    test_dir: holds test images in folders of the same classes, or of some;
      likewise.

  Returns:
    The catalogue; unlabelled images come after the labelled ones.

  Raises:
    FileNotFoundError: a directory that is not there.
    ValueError: a directory that is not laid out like this; says how. Or a
      folder that belongs to two classes.
  """
  _check_directory("data.dir", directory)
  # Outside of the root a path begins with "..", which a link would mislead.
  root = os.path.realpath(directory)
  others = {}
  for field, given in (
    ("data.unlabelled_dir", unlabelled_dir),
    ("data.test_dir", test_dir),
  ):
    if given:
      others[field] = os.path.realpath(os.path.join(root, given))
      _check_directory(field, others[field])
  apart = _identities(root=root, others=others)
  other_files: _Counts = collections.Counter()
  train = _classes("data.dir", root, apart, other_files)
  # Where the unlabelled ones lie must not matter to a copy of the data; nor
  # may they be taken for those of a class called "unlabelled".
  keys = list(train.paths)
  if unlabelled_dir:
    place = others["data.unlabelled_dir"]
    found = _unlabelled(root, place, apart, other_files)
    keys += [
      f"../unlabelled/{os.path.relpath(os.path.join(root, path), place)}"
      for path in found
    ]
    train.paths.extend(found)
    train.labels.extend([catalog.UNLABELLED] * len(found))
  test = None
  if test_dir:
    place = others["data.test_dir"]
    test = _test(place, train.names, apart, other_files)
  return catalog.Catalog(
    name=os.path.basename(os.path.abspath(directory)) or directory,
    class_names=tuple(train.names),
    train=_part(root, train.paths, train.labels, keys),
    test=test,
    other_files=dict(other_files),
  )


def notices(other_files: Mapping[str, int]) -> list[str]:
  """Lines about images in formats that are not read, the most frequent first.

  Args:
    other_files: of a `catalog.Catalog`.
  """
  unread = [
    (n, suffix) for suffix, n in other_files.items() if suffix in _UNREAD
  ]
  return [
    f"{number:,} {suffix} {'file is' if number == 1 else 'files are'} left "
    f"aside: to use {'it' if number == 1 else 'them'}, convert to JPEG or PNG"
    for number, suffix in sorted(unread, key=lambda one: (-one[0], one[1]))
  ]


def _check_directory(field: str, directory: str) -> None:
  """Raises unless it is one."""
  if not directory:
    raise errors.MissingFileError(
      f"{field} is not set: give --config.{field}=DIR"
    )
  if os.path.isdir(directory):
    return
  layout = _LAYOUT
  if field == "data.unlabelled_dir":
    layout = "expected are images, nested as you like"
  place = "" if field == "data.dir" else " (relative to data.dir, or absolute)"
  raise errors.MissingFileError(
    f"{field} = {directory!r} is not a directory{place}; {layout}"
  )


def _identities(*, root: str, others: dict[str, str]) -> frozenset[_Place]:
  """Device and inode of each directory; raises where two are the same."""
  fields = {_identity(root): "data.dir"}
  for field, directory in others.items():
    identity = _identity(directory)
    if identity in fields:
      raise errors.InputError(
        f"{fields[identity]} and {field} are both {directory!r}: give each a "
        "directory of its own"
      )
    fields[identity] = field
  return frozenset(fields)


def _identity(directory: str) -> _Place:
  status = os.stat(directory)
  return status.st_dev, status.st_ino


def _part(
  root: str, paths: list[str], labels: list[int], keys: list[str] | None = None
) -> catalog.Part:
  files = catalog.Files(
    root=root, paths=tuple(paths), keys=tuple(keys or paths)
  )
  return catalog.Part(images=files, labels=np.asarray(labels, np.int32))


class _Classes(NamedTuple):
  """Class names in order, the paths of all images, and the label of each."""

  names: list[str]
  paths: list[str]
  labels: list[int]


def _classes(
  field: str, root: str, apart: frozenset[_Place], other_files: _Counts
) -> _Classes:
  """Lists the class folders in a directory; counts what is left aside."""
  folders, loose, others = _scan(root)
  other_files.update(map(_suffix, others))
  folders = sorted(
    name for name in folders if _identity(os.path.join(root, name)) not in apart
  )
  if loose or not folders:
    images = f"{len(loose)} images" + (
      f" (such as {min(loose)!r})" if loose else ""
    )
    raise errors.InputError(
      f"{field} = {root!r} itself holds {images} and {len(folders)} class "
      f"folders: {_LAYOUT}. Move images without a label to a folder of their "
      "own, and name it in data.unlabelled_dir"
    )
  found = _Classes(folders, [], [])
  owner: dict[_Place, str] = {}
  empty = []
  for label, name in enumerate(folders):
    images, others, entered = _images(os.path.join(root, name), root, apart)
    for place, folder in entered.items():
      same = owner.setdefault(place, name)
      if same != name:
        raise errors.InputError(
          f"{field} = {root!r}: the class folders {same!r} and {name!r} are "
          f"links to the same place, or lead to it ({folder!r}), which would "
          "give its images two labels: remove one of the links"
        )
    if not images:
      empty.append(f"{name!r} (with {others.total()} files of other kinds)")
    other_files.update(others)
    found.paths.extend(images)
    found.labels.extend([label] * len(images))
  if empty:
    raise errors.InputError(
      f"{field} = {root!r}: {len(empty)} of {len(folders)} class folders hold "
      f"no image: {text.first_few(empty, most=_MAX_LISTED)}"
      f". Add images ({', '.join(SUFFIXES)}), or remove the folder"
    )
  return found


def _unlabelled(
  root: str, directory: str, apart: frozenset[_Place], other_files: _Counts
) -> list[str]:
  """Paths of the images below a directory, relative to root."""
  found, others, _ = _images(directory, root, apart)
  if not found:
    raise errors.InputError(
      f"data.unlabelled_dir = {directory!r} holds no image, and "
      f"{others.total()} files of other kinds: add images "
      f'({", ".join(SUFFIXES)}), or set it to ""'
    )
  other_files.update(others)
  return found


def _test(
  directory: str,
  class_names: list[str],
  apart: frozenset[_Place],
  other_files: _Counts,
) -> catalog.Part:
  """The test images, with labels that count as those of class_names do."""
  found = _classes("data.test_dir", directory, apart, other_files)
  unknown = [name for name in found.names if name not in set(class_names)]
  if unknown:
    raise errors.InputError(
      f"data.test_dir = {directory!r} has {len(unknown)} class folders that "
      "data.dir has not: "
      f"{text.first_few(map(repr, unknown), most=_MAX_LISTED)}; data.dir has "
      f"{text.first_few(map(repr, class_names), most=_MAX_LISTED)}"
      ". Name the folders alike"
    )
  to_train = {name: label for label, name in enumerate(class_names)}
  labels = [to_train[found.names[label]] for label in found.labels]
  return _part(directory, found.paths, labels)


def _images(
  top: str, root: str, apart: frozenset[_Place]
) -> tuple[list[str], _Counts, dict[_Place, str]]:
  """Images below a directory, as sorted paths relative to root.

  Args:
    top: where to look.
    root: where the paths start.
    apart: directories that are not entered, should `top` lead to them.

  Returns:
    The paths; the number of other files, by suffix; and the directories that
    were entered.
  """
  paths: list[str] = []
  other_files: _Counts = collections.Counter()
  entered: dict[_Place, str] = {}
  closed = apart - {_identity(top)}
  waiting = [top]
  while waiting:
    folder = waiting.pop()
    identity = _identity(folder)
    if identity in closed or identity in entered:
      continue
    folders, images, others = _scan(folder)
    other_files.update(map(_suffix, others))
    below = entered[identity] = os.path.relpath(folder, root)
    paths += [os.path.join(below, name) for name in images]
    # Of two ways to the same place, the first in this order counts.
    waiting += [
      os.path.join(folder, name) for name in sorted(folders, reverse=True)
    ]
  return sorted(paths), other_files, entered


def _suffix(name: str) -> str:
  return os.path.splitext(name)[1].lower()


def _scan(directory: str) -> tuple[list[str], list[str], list[str]]:
  """Names of the folders, images and other files in it, hidden ones aside."""
  folders, images, others = [], [], []
  with os.scandir(directory) as entries:
    for entry in entries:
      if entry.name.startswith("."):
        continue
      # entry.is_dir() raises for a link to itself.
      is_folder = (
        os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
      )
      # A dangling link counts as an image: reading it tells its name.
      is_image = _suffix(entry.name) in SUFFIXES
      kind = folders if is_folder else images if is_image else others
      kind.append(entry.name)
  return folders, images, others
