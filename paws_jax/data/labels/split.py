"""The split of a training set: its labelled images, drawn or read from a file.

`data.split_seed` fixes a split, separately from the seed of a run; it does not
depend on the number of devices, the version of NumPy or the order of
computation. Every result holds the hash of its split.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
from collections.abc import Sequence
from typing import Any
from typing import Protocol

import numpy as np

from paws_jax import errors
from paws_jax.data.labels import draw
from paws_jax.data.labels import lists
from paws_jax.data.sources import catalog
from paws_jax.runs import data_changes


class Dataset(Protocol):
  """A data set with labels: `arrays.Arrays` or `catalog.Catalog`."""

  @property
  def name(self) -> str:
    """Name for messages."""

  @property
  def class_names(self) -> tuple[str, ...]:
    """Names of the classes, in the order of the labels."""

  @property
  def num_classes(self) -> int:
    """Number of classes."""

  @property
  def train_labels(self) -> np.ndarray:
    """Labels, int32 [n] in [-1, num_classes); -1 without a label."""

  def fingerprint(self) -> str:
    """Returns a hex digest of the data."""


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The labelled part of a training set.

  Attributes:
    dataset: name of the data set, for messages.
    fingerprint: `fingerprint()` of its data.
    split_seed: seed of the draw, or None without a draw.
    class_counts: labelled images of each class, in the order of the classes.
    labelled_ids: int32 [m], rows of the training set, strictly increasing.
    rule: the choice in words: "labels_per_class=4", "labels_fraction=0.1",
      "all labels", "no labels", "labels_file", or "1pct" and "10pct" for the
      paper's lists.
    list_images: lists the training images; None: they have no names.
  """

  dataset: str
  fingerprint: str
  split_seed: int | None
  class_counts: tuple[int, ...]
  labelled_ids: np.ndarray
  rule: str = ""
  list_images: data_changes.ListImages | None = None

  def __post_init__(self) -> None:
    ids = self.labelled_ids
    if ids.dtype != np.int32 or ids.ndim != 1 or np.any(np.diff(ids) <= 0):
      raise errors.InputError(
        f"labelled_ids is {ids.dtype} of shape {ids.shape}, but must be int32 "
        "[m] and increase strictly: pass np.unique(ids).astype(np.int32)"
      )
    if sum(self.class_counts) != len(ids):
      raise errors.InputError(
        f"class_counts add up to {sum(self.class_counts)}, but labelled_ids "
        f"holds {len(ids)}: count the labels of exactly these ids"
      )

  @functools.cached_property
  def hash(self) -> str:
    """Hex sha256 of the data and the ids."""
    return split_hash(self.fingerprint, self.labelled_ids)

  def as_json(self) -> dict[str, Any]:
    """Returns the contents of split.json: plain ints, strings and lists."""
    return {
      "dataset": self.dataset,
      "fingerprint": self.fingerprint,
      "split_seed": self.split_seed,
      "rule": self.rule,
      "class_counts": list(self.class_counts),
      "num_labels": len(self.labelled_ids),
      "labelled_ids": self.labelled_ids.tolist(),
      "hash": self.hash,
    }


def choose(
  dataset: Dataset,
  *,
  labels_per_class: int,
  split_seed: int,
  labels_file: str,
  labels_fraction: float = 0.0,
  every_class: bool = True,
) -> Split:
  """Returns the split that section `data` of a recipe describes.

  A `labels_file` other than "" takes precedence; its classes may differ in
  size. Otherwise `labels_per_class` or `labels_fraction` images are drawn by
  `split_seed`; if both are 0, all images with a label are used. Unless
  `every_class`, a `labels_file` may leave classes out; it may be empty.

  Raises:
    FileNotFoundError: the `labels_file` does not exist.
    ValueError: a class has no labelled image, or see `draw.stratified`.
  """
  labels, names = dataset.train_labels, dataset.class_names
  classes: dict[str, Any] = {"num_classes": len(names), "class_names": names}
  seed = None
  if labels_file:
    ids = from_file(
      labels_file,
      num_images=len(labels),
      labels=labels,
      **_image_names(dataset),
      every_class=every_class,
      **classes,
    )
    rule = lists.published_name(labels_file) or "labels_file"
  elif not np.any(labels >= 0):
    ids, rule = np.zeros(0, np.int32), "no labels"
  elif labels_per_class or labels_fraction:
    seed = split_seed
    ids = draw.stratified(
      labels,
      labels_per_class=labels_per_class,
      labels_fraction=labels_fraction,
      split_seed=split_seed,
      **classes,
    )
    rule = _draw_rule(labels_per_class, labels_fraction)
  else:
    ids = np.flatnonzero(labels >= 0).astype(np.int32)
    rule = "all labels"
  if every_class and len(ids):
    draw.class_counts(f"data set {dataset.name!r}", labels[ids], **classes)
  counts = np.bincount(labels[ids], minlength=dataset.num_classes)
  return Split(
    dataset=dataset.name,
    fingerprint=dataset.fingerprint(),
    split_seed=seed,
    class_counts=tuple(counts.tolist()),
    labelled_ids=ids,
    rule=rule,
    list_images=_image_lister(dataset),
  )


def _image_lister(dataset: Dataset) -> data_changes.ListImages | None:
  """Returns a function that lists a data set's images, if they have names."""
  if not isinstance(dataset, catalog.Catalog):
    return None

  def list_images() -> data_changes.Images:
    names = (*dataset.class_names, "")
    classes = [names[label] for label in dataset.train_labels.tolist()]
    images = dataset.train.images
    keys = [images.key(index) for index in range(len(images))]
    return data_changes.Images(keys, classes)

  return list_images


def _draw_rule(labels_per_class: int, labels_fraction: float) -> str:
  if labels_fraction:
    return f"labels_fraction={labels_fraction:g}"
  return f"labels_per_class={labels_per_class}"


def _image_names(dataset: Dataset) -> dict[str, Any]:
  """Returns names and root of the training images, as `from_file` has them."""
  if not isinstance(dataset, catalog.Catalog):
    return {}
  images = dataset.train.images
  names = [images.key(index) for index in range(len(images))]
  return {"names": names, "root": getattr(images, "root", "")}


def from_file(
  path: str | os.PathLike[str],
  *,
  num_images: int,
  labels: np.ndarray,
  num_classes: int,
  names: Sequence[str] | None = None,
  root: str = "",
  class_names: Sequence[str] | None = None,
  every_class: bool = True,
) -> np.ndarray:
  """Reads the labelled rows of the training set from a file of `lists`.

  Classes may differ in their number of images.

  Args:
    path: the file.
    num_images: size of the training set.
    labels: integers [num_images] in [-1, num_classes); not -1 in the rows
      that the file lists.
    num_classes: number of classes.
    names: names of the images [num_images]; None: they have none.
    root: directory of the images, for absolute paths; "": there is none.
    class_names: names for error messages.
    every_class: whether each class must be listed.

  Returns:
    int32 [m], increasing.

  Raises:
    FileNotFoundError: the file does not exist.
    ValueError: a line is invalid, unknown or repeated, an image has no label
      in the data, or a class has no labelled image; names them.
  """
  labels = draw.check_labels(labels, num_classes)
  if len(labels) != num_images:
    raise errors.InputError(
      f"labels holds {len(labels)} entries, but num_images = {num_images}: "
      "pass the labels of the entire training set"
    )
  ids = lists.read(path, num_images=num_images, names=names, root=root)
  where = f"data.labels_file = {os.fspath(path)!r}"
  unlabelled = ids[labels[ids] < 0].tolist()
  if unlabelled:
    first = unlabelled[0]
    raise errors.InputError(
      f"{where} lists {len(unlabelled)} images without a label in the data, "
      f"the first is row {first}"
      + (f" ({names[first]!r})" if names else "")
      + ": remove them from the list, or label them in the data"
    )
  if every_class and len(ids):
    draw.class_counts(
      where, labels[ids], num_classes=num_classes, class_names=class_names
    )
  return ids


def split_hash(fingerprint: str, labelled_ids: np.ndarray) -> str:
  """Returns hex sha256 of a data set's fingerprint and the sorted ids."""
  ids = ",".join(str(i) for i in np.sort(labelled_ids).tolist())
  return hashlib.sha256(f"{fingerprint}\n{ids}\n".encode()).hexdigest()
