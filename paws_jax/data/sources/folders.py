"""Images in folders named after their classes: root/class_name/*.jpg.

Symbolic links are followed, so that a folder can consist of links to others;
below a class each real directory is read once, so that loops end.
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
from paws_jax.data.sources import paths as paths_lib
from paws_jax.data.sources import system_folders

SUFFIXES = (
  *(".jpg", ".jpeg", ".jpe", ".jfif"),
  *(".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
)
# Image formats of phones, cameras and programs that are not read.
_UNREAD = frozenset(
  (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    *(".psd", ".svg", ".ico", ".tga", ".ppm", ".pgm", ".pnm", ".exr", ".dcm"),
  )
)
_MAX_LISTED = 10
# Device and inode of a directory, and numbers of files by their suffix.
_Identity: TypeAlias = tuple[int, int]
_Counts: TypeAlias = collections.Counter[str]
_LAYOUT = (
  f"expected are images ({', '.join(SUFFIXES)}) in one folder per class, as in "
  "data.dir/cat/1.jpg and data.dir/dog/7.png"
)


def load(
  directory: str, *, unlabelled_dir: str, test_dir: str
) -> catalog.Catalog:
  """Lists the images in a folder without opening them.

  Images are files that end in one of `SUFFIXES`, in any case, at any depth
  below their class. Hidden files (".name") are ignored; other files, and those
  in `system_folders`, are ignored and counted. Classes are sorted by name,
  images by path.

  Args:
    directory: holds one folder per class.
    unlabelled_dir: holds unlabelled images at any depth; a path as
      `paths.resolve` finds it, inside `directory` or not. "": there are none.
    test_dir: holds test images in folders of all or some of the classes; the
      path as for `unlabelled_dir`.

  Returns:
    The catalog; unlabelled images come after the labelled ones.

  Raises:
    FileNotFoundError: a directory does not exist.
    ValueError: a directory has another layout, or a folder belongs to two
      classes.
  """
  _check_directory("data.dir", directory)
  # Paths outside the root begin with "..", which a link would redirect.
  root = os.path.realpath(directory)
  fields = {"data.unlabelled_dir": unlabelled_dir, "data.test_dir": test_dir}
  others = {
    field: _resolved(field, path, directory)
    for field, path in fields.items()
    if path
  }
  excluded = _Excluded(
    _identities(root=root, others=others), system_folders.LeftAside(SUFFIXES)
  )
  other_files: _Counts = collections.Counter()
  train = _classes("data.dir", root, excluded, other_files)
  # Keys must not depend on the place of unlabelled_dir, nor equal those of a
  # class called "unlabelled".
  keys = list(train.paths)
  if place := others.get("data.unlabelled_dir"):
    paths = _unlabelled(root, place, excluded, other_files)
    keys += [
      f"../unlabelled/{os.path.relpath(os.path.join(root, path), place)}"
      for path in paths
    ]
    train.paths.extend(paths)
    train.labels.extend([catalog.UNLABELLED] * len(paths))
  place = others.get("data.test_dir")
  test = place and _test(place, train.names, excluded, other_files)
  return catalog.Catalog(
    name=os.path.basename(os.path.abspath(directory)) or directory,
    class_names=tuple(train.names),
    train=_part(root, train.paths, train.labels, keys),
    test=test,
    other_files=dict(other_files),
    notices=tuple(excluded.system.notices()),
  )


def notices(other_files: Mapping[str, int]) -> list[str]:
  """Returns a line per image format that is not read, most frequent first.

  Args:
    other_files: field of a `catalog.Catalog`.
  """
  unread = [
    (n, suffix) for suffix, n in other_files.items() if suffix in _UNREAD
  ]
  return [
    f"{number:,} {suffix} {'file is' if number == 1 else 'files are'} ignored: "
    f"to use {'it' if number == 1 else 'them'}, convert to JPEG or PNG"
    for number, suffix in sorted(unread, key=lambda one: (-one[0], one[1]))
  ]


def _check_directory(field: str, directory: str) -> None:
  """Refuses a path that is not a directory."""
  if not directory:
    raise errors.MissingFileError(
      f"{field} is not set: give --config.{field}=DIR"
    )
  if os.path.isdir(directory):
    return
  layout = _LAYOUT
  if field == "data.unlabelled_dir":
    layout = "expected are images, in folders of any depth"
  raise errors.MissingFileError(
    f"{field} = {directory!r} is not a directory; {layout}. If it has moved, "
    f"give its place with --config.{field}=DIR"
  )


def _resolved(field: str, path: str, data_dir: str) -> str:
  """Returns the real path of a directory that must exist."""
  path = os.path.realpath(paths_lib.resolve(field, path, data_dir=data_dir))
  _check_directory(field, path)
  return path


def _identities(*, root: str, others: dict[str, str]) -> frozenset[_Identity]:
  """Returns the identity of each directory; refuses equal ones."""
  fields = {_identity(root): "data.dir"}
  for field, directory in others.items():
    identity = _identity(directory)
    if identity in fields:
      raise errors.InputError(
        f"{fields[identity]} and {field} are both {directory!r}: give each "
        "its own directory"
      )
    fields[identity] = field
  return frozenset(fields)


def _identity(directory: str) -> _Identity:
  status = os.stat(directory)
  return status.st_dev, status.st_ino


def _part(
  root: str, paths: list[str], labels: list[int], keys: list[str] | None = None
) -> catalog.Part:
  files = catalog.Files(
    root=root, paths=tuple(paths), keys=tuple(keys or paths)
  )
  return catalog.Part(images=files, labels=np.asarray(labels, np.int32))


class _Excluded(NamedTuple):
  """Directories that are not entered, and those that systems have made."""

  identities: frozenset[_Identity]
  system: system_folders.LeftAside


class _Classes(NamedTuple):
  """Class names in order, and the path and label of each image."""

  names: list[str]
  paths: list[str]
  labels: list[int]


def _classes(
  field: str, root: str, excluded: _Excluded, other_files: _Counts
) -> _Classes:
  """Lists the class folders in a directory; counts other files."""
  folders, top_images, others = _scan(root, excluded.system)
  other_files.update(map(_suffix, others))
  folders = sorted(
    name
    for name in folders
    if _identity(os.path.join(root, name)) not in excluded.identities
  )
  if top_images or not folders:
    images = f"{len(top_images)} images" + (
      f" (such as {min(top_images)!r})" if top_images else ""
    )
    raise errors.InputError(
      f"{field} = {root!r} itself holds {images} and {len(folders)} class "
      f"folders: {_LAYOUT}. Move images without a label to another folder, and "
      "set data.unlabelled_dir to it"
    )
  classes = _Classes(folders, [], [])
  owner: dict[_Identity, str] = {}
  empty = []
  for label, name in enumerate(folders):
    images, others, entered = _images(os.path.join(root, name), root, excluded)
    for place, folder in entered.items():
      same = owner.setdefault(place, name)
      if same != name:
        raise errors.InputError(
          f"{field} = {root!r}: the class folders {same!r} and {name!r} lead "
          f"to the same folder ({folder!r}), whose images would have two "
          "labels: remove one of the links"
        )
    if not images:
      empty.append(f"{name!r} (with {others.total()} files in other formats)")
    other_files.update(others)
    classes.paths.extend(images)
    classes.labels.extend([label] * len(images))
  if empty:
    raise errors.InputError(
      f"{field} = {root!r}: {len(empty)} of {len(folders)} class folders hold "
      f"no image: {text.first_few(empty, most=_MAX_LISTED)}"
      f". Add images ({', '.join(SUFFIXES)}), or remove the folder"
      + "".join(f"; {line}" for line in excluded.system.notices())
    )
  return classes


def _unlabelled(
  root: str,
  directory: str,
  excluded: _Excluded,
  other_files: _Counts,
) -> list[str]:
  """Lists the images below a directory, as paths relative to root."""
  paths, others, _ = _images(directory, root, excluded)
  if not paths:
    raise errors.InputError(
      f"data.unlabelled_dir = {directory!r} holds no image, and "
      f"{others.total()} files in other formats: add images "
      f'({", ".join(SUFFIXES)}), or set it to ""'
    )
  other_files.update(others)
  return paths


def _test(
  directory: str,
  class_names: list[str],
  excluded: _Excluded,
  other_files: _Counts,
) -> catalog.Part:
  """Lists the test images; labels are places in `class_names`."""
  test = _classes("data.test_dir", directory, excluded, other_files)
  unknown = [name for name in test.names if name not in set(class_names)]
  if unknown:
    raise errors.InputError(
      f"data.test_dir = {directory!r} has {len(unknown)} class folders that "
      "data.dir lacks: "
      f"{text.first_few(map(repr, unknown), most=_MAX_LISTED)}; data.dir has "
      f"{text.first_few(map(repr, class_names), most=_MAX_LISTED)}"
      ". Name the folders alike"
    )
  to_train = {name: label for label, name in enumerate(class_names)}
  labels = [to_train[test.names[label]] for label in test.labels]
  return _part(directory, test.paths, labels)


def _images(
  top: str, root: str, excluded: _Excluded
) -> tuple[list[str], _Counts, dict[_Identity, str]]:
  """Lists the images below a directory.

  Args:
    top: the directory.
    root: directory to which paths are relative.
    excluded: directories that are not entered, except `top` itself.

  Returns:
    The sorted paths; the number of other files by suffix; and the directories
    entered.
  """
  paths: list[str] = []
  other_files: _Counts = collections.Counter()
  entered: dict[_Identity, str] = {}
  closed = excluded.identities - {_identity(top)}
  waiting = [top]
  while waiting:
    folder = waiting.pop()
    identity = _identity(folder)
    if identity in closed or identity in entered:
      continue
    folders, images, others = _scan(folder, excluded.system)
    other_files.update(map(_suffix, others))
    below = entered[identity] = os.path.relpath(folder, root)
    paths += [os.path.join(below, name) for name in images]
    # Of two paths to the same directory, the first in this order counts.
    waiting += [
      os.path.join(folder, name) for name in sorted(folders, reverse=True)
    ]
  return sorted(paths), other_files, entered


def _suffix(name: str) -> str:
  return os.path.splitext(name)[1].lower()


def _scan(
  directory: str, left_aside: system_folders.LeftAside
) -> tuple[list[str], list[str], list[str]]:
  """Lists the visible folders, images and other files in a directory."""
  folders, images, others = [], [], []
  with os.scandir(directory) as entries:
    for entry in entries:
      if entry.name.startswith("."):
        continue
      # entry.is_dir() raises for a link to itself.
      is_folder = (
        os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()
      )
      # A dangling link counts as an image: reading it gives an error.
      is_image = _suffix(entry.name) in SUFFIXES
      kind = folders if is_folder else images if is_image else others
      kind.append(entry.name)
  return left_aside.without(directory, folders), images, others
