"""Images of a fit or a prediction, in any of the forms that users have them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import text
from paws_jax.data.host import decode
from paws_jax.data.sources import listed_files
from paws_jax.estimator import labels
from paws_jax.estimator import pixels
from paws_jax.predict import find_images

_ACCEPTED = (
  "give a uint8 array [n, height, width, channels] or [n, height, width], a "
  "list of such images, of Pillow images or of paths, a folder, or a table "
  "with a column path"
)


@dataclasses.dataclass(frozen=True)
class Place:
  """A folder with folders of classes, or a CSV file that lists images."""

  path: str


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """Files of images.

  Attributes:
    paths: absolute.
    labels: of each, of a table with such a column; None: there are none.
    splits: "train", "val", "test" or "" of each, as `labels`.
  """

  paths: tuple[str, ...]
  labels: Any = None
  splits: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Pixels:
  """Images in memory: uint8 [n, H, W, 1 or 3]."""

  images: np.ndarray


def read(images: Any, root: str = "") -> Place | Files | Pixels:
  """Finds out which images X of a fit stands for.

  Args:
    images: X.
    root: field `data.dir`, which relative paths begin in; "": the current
      directory.

  Raises:
    UserError: says what X is, and what it may be.
  """
  listed = _listed(images)
  if isinstance(listed, str):
    return Place(_existing(listed))
  if isinstance(listed, Table):
    return _table(listed, root)
  if isinstance(listed, np.ndarray):
    return Pixels(pixels.batch(listed, "X"))
  if _is_path(listed[0]):
    return Files(_paths(listed, root))
  return Pixels(_stacked(listed))


def to_classify(images: Any, root: str = "") -> Sequence[Any] | np.ndarray:
  """Returns images as `Classifier.predict` takes them; arguments of `read`.

  A folder gives all images below it, sorted by path. Images of a list may
  differ in size.
  """
  listed = _listed(images)
  if isinstance(listed, str):
    found = find_images.find("X", listed)
    return [found.path(name) for name in found.names]
  if isinstance(listed, Table):
    return list(_paths(listed.column(), root))
  if isinstance(listed, np.ndarray):
    return pixels.batch(listed, "X")
  if _is_path(listed[0]):
    return list(_paths(listed, root))
  for i, image in enumerate(listed):
    if not _is_pillow(image):
      pixels.single(_array(image, f"X[{i}]"), f"X[{i}]")
  return [x if _is_pillow(x) else np.asarray(x) for x in listed]


def count(images: Any) -> int | None:
  """Number of images of X; None of a place on disk."""
  listed = _listed(images)
  if isinstance(listed, str):
    return None
  return len(listed.column()) if isinstance(listed, Table) else len(listed)


class Table:
  """A DataFrame of pandas, or of any package with columns by name."""

  def __init__(self, frame: Any):
    """Finds the columns; names count in any case."""
    self._frame = frame
    self._names = {str(n).strip().casefold(): n for n in frame.columns}

  def column(self) -> list[Any]:
    """The paths."""
    place = listed_files.image_column(map(str, self._frame.columns))
    if place is None:
      raise errors.InputError(
        "X is a table without a column "
        f"{' or '.join(listed_files.IMAGE_COLUMNS)}, but "
        f"{listed_files.shown([str(n) for n in self._frame.columns])}: rename "
        "the one with the paths."
      )
    return list(self._frame[list(self._frame.columns)[place]])

  def other(self, name: str) -> list[Any] | None:
    """Another column; None: there is none."""
    if name not in self._names:
      return None
    return list(self._frame[self._names[name]])


def _table(table: Table, root: str) -> Files:
  column, splits = table.other("split"), None
  if column is not None:
    splits = tuple("" if labels.is_missing(x) else str(x) for x in column)
  return Files(_paths(table.column(), root), table.other("label"), splits)


def _listed(images: Any) -> str | Table | np.ndarray | list[Any]:
  """Returns a path, a table, an array of numbers, or a list with an item."""
  if isinstance(images, (str, os.PathLike)):
    return os.path.expanduser(os.fspath(images))
  if hasattr(images, "columns") and hasattr(images, "__getitem__"):
    return Table(images)
  if _is_pillow(images):
    raise errors.InputError("X is one Pillow image: give a list of them.")
  if hasattr(images, "__array__") or hasattr(images, "__array_interface__"):
    array = np.asarray(images)
    if array.dtype.kind not in "OUST":
      return array
    if array.ndim != 1:
      raise errors.InputError(
        f"X is an array of {array.dtype} with the shape {list(array.shape)}: "
        f"{_ACCEPTED}."
      )
    images = array.tolist()
  if isinstance(images, (bytes, Mapping)) or not isinstance(images, Iterable):
    raise errors.InputError(f"X is a {type(images).__name__}: {_ACCEPTED}.")
  listed = list(images)
  if not listed:
    raise errors.InputError(f"X is empty: {_ACCEPTED}.")
  kinds: dict[str, int] = {}
  for i, image in enumerate(listed):
    kinds.setdefault(_kind(image), i)
  if len(kinds) > 1:
    first = " and ".join(f"X[{i}] is {kind}" for kind, i in kinds.items())
    raise errors.InputError(
      f"X holds images of different kinds: {first}. Give all in one."
    )
  return listed


def _kind(image: Any) -> str:
  if _is_path(image):
    return "a path"
  if _is_pillow(image):
    return "a Pillow image"
  if image is None or str(image) in ("nan", "<NA>"):
    return f"{image}, a missing value"
  return "an array" if np.ndim(image) else f"a {type(image).__name__}"


def _is_path(image: Any) -> bool:
  return isinstance(image, (str, os.PathLike))


def _is_pillow(image: Any) -> bool:
  # Without Pillow nobody has an image of it.
  return hasattr(image, "mode") and hasattr(image, "getexif")


def _existing(path: str) -> str:
  if os.path.isdir(path) or (
    os.path.isfile(path) and path.lower().endswith(".csv")
  ):
    return os.path.abspath(path)
  shown = text.printable(path)
  if os.path.isfile(path):
    raise errors.InputError(
      f"X is one file, {shown!r}: give a list of paths, a folder, or a table "
      "that ends in .csv."
    )
  raise errors.MissingFileError(
    f"X is {shown!r}, and there is no such folder: a path alone names a folder "
    f"of images.{listed_files.hint([path])}"
  )


def _paths(paths: Sequence[Any], root: str) -> tuple[str, ...]:
  """Returns absolute paths of files that exist, each once."""
  top = os.path.abspath(os.path.expanduser(root))
  forms = listed_files.NameForms()
  found: dict[str, int] = {}
  missing = []
  for i, path in enumerate(paths):
    if not _is_path(path):
      raise errors.InputError(
        f"X[{i}] is {path!r}, and no path: leave out rows without one."
      )
    place = os.path.abspath(os.path.join(top, os.fspath(path)))
    place = forms.find(os.sep, place)
    if place in found:
      raise errors.InputError(
        f"X[{found[place]}] and X[{i}] are the same file, "
        f"{text.printable(place)!r}: give each image once."
      )
    found[place] = i
    if not os.path.isfile(place):
      missing.append((i, os.fspath(path)))
  if missing:
    listed = text.first_few(f"X[{i}] = {path!r}" for i, path in missing)
    raise errors.MissingFileError(
      f"{text.count(len(missing), 'file')} of {len(found):,} in X cannot be "
      f"found below {top!r}: {listed}. Correct the paths."
      + listed_files.hint(path for _, path in missing)
    )
  return tuple(found)


def _array(image: Any, name: str) -> np.ndarray:
  try:
    return np.asarray(image)
  except ValueError as error:
    raise errors.InputError(f"{name} is no image: {_ACCEPTED}.") from error


def _stacked(images: list[Any]) -> np.ndarray:
  """Returns uint8 [n, H, W, Ch] of arrays or Pillow images of one size."""
  names = [f"X[{i}]" for i in range(len(images))]
  if _is_pillow(images[0]):
    grey = all(image.mode in ("1", "L") for image in images)
    rgb = [decode.upright_rgb(image, 0, white_level=0) for image in images]
    arrays = [np.asarray(a)[..., :1] if grey else np.asarray(a) for a in rgb]
  else:
    arrays = [
      pixels.single(_array(image, name), name)
      for image, name in zip(images, names, strict=True)
    ]
  first = arrays[0].shape
  for name, array in zip(names, arrays, strict=True):
    if array.shape != first:
      raise errors.InputError(
        f"X holds images of different kinds: {names[0]} is {list(first)} and "
        f"{name} {list(array.shape)} [height, width, channels]. Resize or "
        "convert them to one, or save them as files and give their paths: "
        "files may differ."
      )
  return np.stack(arrays)
