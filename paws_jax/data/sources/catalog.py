"""A catalog of encoded images and their classes.

A catalog describes a data set on disk before a pixel is read: `folders`,
`manifest` and `tfds_records` make one, `labels.split` chooses the labelled
part of it, and the host pipeline reads and decodes images by index.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from paws_jax import errors
from paws_jax.runs import files as files_lib

UNLABELLED = -1


class Reader(Protocol):
  """Random access to encoded images, safe to use from several threads."""

  def __len__(self) -> int:
    """Number of images."""
    ...

  def name(self, index: int) -> str:
    """Returns a name for messages: "imagenet2012 train: n01_6.JPEG"."""
    ...

  def key(self, index: int) -> str:
    """Returns the name in lists of labelled images: "n01_6.JPEG"."""
    ...

  def size(self, index: int) -> int:
    """Returns the bytes of the encoded image; raises OSError naming it."""
    ...

  def read(self, index: int) -> bytes:
    """Returns the encoded image; raises OSError naming it."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Files:
  """A `Reader` of images that are one file each.

  Attributes:
    root: directory.
    paths: path of each image, relative to `root`.
    keys: names of the images in lists of labelled images; default their paths.
  """

  root: str
  paths: tuple[str, ...]
  keys: tuple[str, ...] = ()

  def __len__(self) -> int:
    """Number of images."""
    return len(self.paths)

  def name(self, index: int) -> str:
    """Returns the path relative to `root`."""
    return self.paths[index]

  def key(self, index: int) -> str:
    """Returns the key, by default the path relative to `root`."""
    return (self.keys or self.paths)[index]

  def path(self, index: int) -> str:
    """Returns the path that opens the file."""
    return os.path.join(self.root, self.paths[index])

  def size(self, index: int) -> int:
    """Returns the size of the file; raises OSError naming it."""
    return os.stat(self.path(index)).st_size

  def read(self, index: int) -> bytes:
    """Returns the contents of the file; raises OSError naming it."""
    return files_lib.read_bytes(self.path(index))


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
  """Images and their classes.

  Attributes:
    images: n encoded images.
    labels: int32 [n], the class of each; -1 without a label.
  """

  images: Reader
  labels: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Catalog:
  """A data set of encoded images; checked when it is made.

  Attributes:
    name: for messages: the directory's name, "imagenet2012/5.1.0".
    class_names: one for each class, in the order of the labels.
    train: the training images; for methods without labels none need have one.
    test: images to evaluate on, all labelled; None: there are none.
    val: images to choose settings on, all labelled; None: there are none.
    other_files: number of files among the images that are not read, by suffix
      in lower case: {".heic": 50, ".txt": 1, "": 2}.
    notices: lines that a user should see, such as what was left aside.
    warnings: lines about what is probably not meant.
  """

  name: str
  class_names: tuple[str, ...]
  train: Part
  test: Part | None = None
  val: Part | None = None
  other_files: Mapping[str, int] = dataclasses.field(default_factory=dict)
  notices: tuple[str, ...] = ()
  warnings: tuple[str, ...] = ()

  def __post_init__(self) -> None:
    seen: dict[str, int] = {}
    for class_id, class_name in enumerate(self.class_names):
      if class_name in seen:
        raise errors.InputError(
          f"{self.name}: classes {seen[class_name]} and {class_id} are both "
          f"called {class_name!r}: give each class its own name"
        )
      seen[class_name] = class_id
    self._check("train", self.train, lowest=UNLABELLED)
    for field in ("test", "val"):
      part = getattr(self, field)
      if part is not None:
        self._check(field, part, lowest=0)

  def _check(self, field: str, part: Part, *, lowest: int) -> None:
    """Raises unless labels are int32 [n > 0] in [lowest, num_classes)."""
    labels = part.labels
    if labels.dtype != np.int32 or labels.ndim != 1:
      raise errors.InputError(
        f"{self.name}: {field}.labels is {labels.dtype} of rank {labels.ndim},"
        " but must be int32 of rank 1: pass class numbers, .astype(np.int32)"
      )
    if len(labels) != len(part.images) or not len(labels):
      raise errors.InputError(
        f"{self.name}: {field} holds {len(part.images)} images and "
        f"{len(labels)} labels: give at least one image, and each one label"
      )
    bad = (labels < lowest) | (labels >= self.num_classes)
    if np.any(bad):
      at = int(np.argmax(bad))
      raise errors.InputError(
        f"{self.name}: {field}.labels[{at}] = {labels[at]} "
        f"({part.images.name(at)}) is outside [{lowest}, {self.num_classes}), "
        f"the first of {int(bad.sum())}: number the classes from 0 and name "
        "each in class_names"
      )

  @property
  def num_classes(self) -> int:
    """Number of classes."""
    return len(self.class_names)

  @property
  def train_labels(self) -> np.ndarray:
    """Int32 [n]: classes of the training images, -1 where unlabelled."""
    return self.train.labels

  def fingerprint(self) -> str:
    """Returns hex sha256 of the names and labels of the training images.

    Test images do not enter: they may be repaired during a run. Neither do
    sizes and pixels, so that a damaged or missing image may be repaired too;
    an image replaced by another of the same name is not noticed. Neither does
    the directory: a copy of the data has the same fingerprint.
    """
    return self._fingerprint

  @functools.cached_property
  def _fingerprint(self) -> str:
    digest = hashlib.sha256()
    for class_name in self.class_names:
      digest.update(_line("class", class_name))
    images = self.train.images
    digest.update(_line("train", str(len(images))))
    for index, label in enumerate(self.train.labels.tolist()):
      digest.update(_line(str(label), images.key(index)))
    return digest.hexdigest()


def _line(start: str, name: str) -> bytes:
  """Returns a line of the hashed text; file names need not be UTF-8."""
  encoded = name.encode("utf-8", "surrogateescape")
  # The length comes first: a name may hold line ends.
  return f"{start} {len(encoded)} ".encode() + encoded + b"\n"
