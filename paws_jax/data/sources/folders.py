"""Images in folders named after their classes: root/class_name/*.jpg.

Symbolic links are followed, so that a folder can consist of links to others;
below a class each real directory is read once, so that loops end.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.data.labels import label_names
from paws_jax.data.sources import catalog
from paws_jax.data.sources import folder_walk
from paws_jax.data.sources import listed_files
from paws_jax.data.sources import paths as paths_lib
from paws_jax.data.sources import system_folders

SUFFIXES = folder_walk.SUFFIXES
# Image formats of phones, cameras and programs that are not read.
_UNREAD = frozenset(
  (
    *(".heic", ".heif", ".avif", ".jxl", ".jp2", ".j2k", ".jpx"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
    *(".psd", ".svg", ".ico", ".tga", ".ppm", ".pgm", ".pnm", ".exr", ".dcm"),
  )
)
_MAX_LISTED = 10
_LAYOUT = (
  f"expected are images ({', '.join(SUFFIXES)}) in one folder per class, as in "
  "data.dir/cat/1.jpg and data.dir/dog/7.png"
)


def load(
  directory: str, *, unlabelled_dir: str, test_dir: str, real_labels: str = ""
) -> catalog.Catalog:
  """Lists the images in a folder without opening them.

  Images are files that end in one of `SUFFIXES`, in any case, at any depth
  below their class. Hidden files (".name") are ignored; other files, and those
  in `system_folders`, are ignored and counted. Classes are sorted by name,
  images by path.

  Args:
    directory: holds one folder per class. "": no image has a label.
    unlabelled_dir: holds unlabelled images at any depth; a path as
      `paths.resolve` finds it, inside `directory` or not. "": there are none.
    test_dir: holds test images in folders of all or some of the classes; the
      path as for `unlabelled_dir`.
    real_labels: class names that look like missing labels, with commas.

  Returns:
    The catalog; unlabelled images come after the labelled ones.

  Raises:
    FileNotFoundError: a directory does not exist.
    ValueError: another layout, or a folder of two classes.
  """
  if not directory and unlabelled_dir:
    return _without_labels(unlabelled_dir, test_dir)
  _check_directory("data.dir", directory)
  # Paths outside begin with "..", which a link would redirect.
  root = os.path.realpath(directory)
  fields = {"data.unlabelled_dir": unlabelled_dir, "data.test_dir": test_dir}
  others = {
    field: _resolved(field, path, directory)
    for field, path in fields.items()
    if path
  }
  exclusions = folder_walk.Exclusions(_identities(root=root, others=others))
  train = _classes("data.dir", root, exclusions)
  where = f"data.dir = {root!r}"
  label_names.check_folders(where, train.names, real_labels=real_labels)
  warnings = _warnings(train)
  keys = list(train.paths)
  if place := others.get("data.unlabelled_dir"):
    paths, names = _unlabelled(root, place, exclusions)
    keys += names
    train.paths.extend(paths)
    train.labels.extend([catalog.UNLABELLED] * len(paths))
  place = others.get("data.test_dir")
  test = _test(place, train.names, exclusions) if place else None
  return catalog.Catalog(
    name=os.path.basename(os.path.abspath(directory)) or directory,
    class_names=tuple(train.names),
    train=_part(root, train.paths, train.labels, keys),
    test=test,
    **exclusions.fields(),
    warnings=warnings,
  )


def _without_labels(directory: str, test_dir: str) -> catalog.Catalog:
  """Lists images of which none has a label; their keys are those of `load`."""
  if test_dir:
    raise errors.InputError(
      f"data.test_dir is {test_dir!r} but data.dir is '': test images are "
      "judged by labelled ones; give a folder for each class with "
      "--config.data.dir=DIR, or leave test_dir out"
    )
  place = _resolved("data.unlabelled_dir", directory, "")
  exclusions = folder_walk.Exclusions()
  paths, keys = _unlabelled(place, place, exclusions)
  labels = [catalog.UNLABELLED] * len(paths)
  return catalog.Catalog(
    name=os.path.basename(place) or place,
    class_names=(),
    train=_part(place, paths, labels, keys),
    **exclusions.fields(),
  )


def _warnings(train: _Classes) -> tuple[str, ...]:
  """Returns lines about what is probably not meant."""
  return (
    *label_names.warnings(train.names, train.labels),
    *system_folders.folders_of_copies(train.paths),
  )


def load_test(
  test_dir: str, *, data_dir: str, class_names: Sequence[str]
) -> tuple[catalog.Part, dict[str, Any]]:
  """Lists test images in folders of all or some of the classes.

  Args:
    test_dir: as for `load`.
    data_dir: directory to which former recipes took it to be relative.
    class_names: of the training images.

  Returns:
    The images, and the fields of a catalog that report what is not read.

  Raises:
    FileNotFoundError: the directory does not exist.
    ValueError: it has another layout, or an unknown class.
  """
  place = _resolved("data.test_dir", test_dir, data_dir)
  exclusions = folder_walk.Exclusions()
  part = _test(place, class_names, exclusions)
  return part, exclusions.fields()


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


def _identities(
  *, root: str, others: dict[str, str]
) -> frozenset[folder_walk.Identity]:
  """Returns the identity of each directory; refuses equal ones."""
  fields = {folder_walk.identity(root): "data.dir"}
  for field, directory in others.items():
    identity = folder_walk.identity(directory)
    if identity in fields:
      raise errors.InputError(
        f"{fields[identity]} and {field} are both {directory!r}: give each "
        "its own directory"
      )
    fields[identity] = field
  return frozenset(fields)


def _part(
  root: str, paths: list[str], labels: list[int], keys: list[str] | None = None
) -> catalog.Part:
  files = catalog.Files(
    root=root, paths=tuple(paths), keys=tuple(keys or paths)
  )
  return catalog.Part(images=files, labels=np.asarray(labels, np.int32))


class _Classes(NamedTuple):
  """Class names in order, and the path and label of each image."""

  names: list[str]
  paths: list[str]
  labels: list[int]


def _classes(
  field: str,
  root: str,
  exclusions: folder_walk.Exclusions,
) -> _Classes:
  """Lists the class folders in a directory; counts other files."""
  folders, top_images, others = folder_walk.scan(root, exclusions.system)
  exclusions.other_files.update(map(folder_walk.suffix, others))
  folders = sorted(
    name
    for name in folders
    if folder_walk.identity(os.path.join(root, name))
    not in exclusions.directories
  )
  if top_images or not folders:
    counted = f"{len(top_images)} images" + (
      f" (such as {min(top_images)!r})" if top_images else ""
    )
    raise errors.InputError(
      f"{field} = {root!r} itself holds {counted} and {len(folders)} class "
      f"folders: {_LAYOUT}. Move images without a label to another folder, and "
      "set data.unlabelled_dir to it"
    )
  classes = _Classes(folders, [], [])
  owner: dict[folder_walk.Identity, str] = {}
  empty = []
  for label, name in enumerate(folders):
    images, left_out, entered = folder_walk.find_images(
      os.path.join(root, name), root, exclusions
    )
    for place, folder in entered.items():
      same = owner.setdefault(place, name)
      if same != name:
        raise errors.InputError(
          f"{field} = {root!r}: the class folders {same!r} and {name!r} lead "
          f"to the same folder ({folder!r}), whose images would have two "
          "labels: remove one of the links"
        )
    if not images:
      empty.append(f"{name!r} (with {left_out.total()} files in other formats)")
    classes.paths.extend(images)
    classes.labels.extend([label] * len(images))
  if empty:
    raise errors.InputError(
      f"{field} = {root!r}: {len(empty)} of {len(folders)} class folders hold "
      f"no image: {text.first_few(empty, most=_MAX_LISTED)}"
      f". Add images ({', '.join(SUFFIXES)}), or remove the folder"
      + "".join(f"; {line}" for line in exclusions.system.notices())
    )
  return classes


def _unlabelled(
  root: str,
  directory: str,
  exclusions: folder_walk.Exclusions,
) -> tuple[list[str], list[str]]:
  """Returns the images below a directory, as paths relative to root, and keys.

  Keys must not depend on the place of the directory, nor equal those of a class
  called "unlabelled".
  """
  paths, others, _ = folder_walk.find_images(directory, root, exclusions)
  if not paths:
    raise errors.InputError(
      f"data.unlabelled_dir = {directory!r} holds no image, and "
      f"{others.total()} files in other formats: add images "
      f'({", ".join(SUFFIXES)}), or set it to ""'
    )
  return paths, [
    f"../unlabelled/{os.path.relpath(os.path.join(root, path), directory)}"
    for path in paths
  ]


def _test(
  directory: str,
  class_names: Sequence[str],
  exclusions: folder_walk.Exclusions,
) -> catalog.Part:
  """Lists the test images; labels are places in `class_names`."""
  test = _classes("data.test_dir", directory, exclusions)
  to_train = {name: label for label, name in enumerate(class_names)}
  by_form = listed_files.by_form(class_names)
  for name in test.names:
    alike = by_form.get(listed_files.in_one_form(name))
    if name not in to_train and alike is not None:
      to_train[name] = alike
  unknown = [name for name in test.names if name not in to_train]
  if unknown:
    raise errors.InputError(
      f"data.test_dir = {directory!r} has {len(unknown)} class folders that "
      "data.dir lacks: "
      f"{text.first_few(map(repr, unknown), most=_MAX_LISTED)}; data.dir has "
      f"{text.first_few(map(repr, class_names), most=_MAX_LISTED)}"
      ". Name the folders alike"
    )
  labels = [to_train[test.names[label]] for label in test.labels]
  return _part(directory, test.paths, labels)
