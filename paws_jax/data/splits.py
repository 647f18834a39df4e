"""Which training images are labelled: drawn by class, or read from a file.

A split is fixed by `data.split_seed`, apart from the seed of a run, and does
not depend on the number of devices, the version of NumPy or the order in
which anything is computed. Its hash goes with every result.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

if TYPE_CHECKING:  # `sources` draws the test part of digits with draw_order
  from paws_jax.data import sources

_MAX_LISTED_CLASSES = 20


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
  """The labelled part of a training set.

  Attributes:
    dataset: name of the data set, for readers.
    fingerprint: `sources.Arrays.fingerprint()` of the data it belongs to.
    split_seed: seed of the draw, or None when the ids came from a file.
    class_counts: labelled images of each class, in the order of the classes.
    labelled_ids: int32 [m], rows of the training set, strictly increasing.
  """

  dataset: str
  fingerprint: str
  split_seed: int | None
  class_counts: tuple[int, ...]
  labelled_ids: np.ndarray

  def __post_init__(self):
    ids = self.labelled_ids
    if ids.dtype != np.int32 or ids.ndim != 1 or np.any(np.diff(ids) <= 0):
      raise ValueError(
        f"labelled_ids is {ids.dtype} of shape {ids.shape}, but must be int32 "
        "[m] and increase strictly: pass np.unique(ids).astype(np.int32)"
      )
    if sum(self.class_counts) != len(ids):
      raise ValueError(
        f"class_counts add up to {sum(self.class_counts)}, but labelled_ids "
        f"holds {len(ids)}: count the labels of exactly these ids"
      )

  @functools.cached_property
  def hash(self) -> str:
    """Hex sha256 of the data and the ids: equal if and only if both are."""
    return split_hash(self.fingerprint, self.labelled_ids)

  def as_json(self) -> dict[str, Any]:
    """Returns the contents of split.json: plain ints, strings and lists."""
    return {
      "dataset": self.dataset,
      "fingerprint": self.fingerprint,
      "split_seed": self.split_seed,
      "class_counts": list(self.class_counts),
      "num_labels": len(self.labelled_ids),
      "labelled_ids": self.labelled_ids.tolist(),
      "hash": self.hash,
    }


def choose(
  arrays: sources.Arrays,
  *,
  labels_per_class: int,
  split_seed: int,
  labels_file: str,
) -> Split:
  """Returns the split that section `data` of a recipe describes.

  A `labels_file` other than "" goes before the draw by `split_seed`, and may
  label each class a different number of times.

  Raises:
    FileNotFoundError, ValueError: as `from_file` and `stratified` do.
  """
  classes = {
    "num_classes": arrays.num_classes,
    "class_names": arrays.class_names,
  }
  if labels_file:
    ids = from_file(
      labels_file,
      num_images=len(arrays.train_labels),
      labels=arrays.train_labels,
      **classes,
    )
  else:
    ids = stratified(
      arrays.train_labels,
      labels_per_class=labels_per_class,
      split_seed=split_seed,
      **classes,
    )
  counts = np.bincount(arrays.train_labels[ids], minlength=arrays.num_classes)
  return Split(
    dataset=arrays.name,
    fingerprint=arrays.fingerprint(),
    split_seed=None if labels_file else split_seed,
    class_counts=tuple(counts.tolist()),
    labelled_ids=ids,
  )


def draw_order(
  num: int, *, purpose: str, seed: int, class_id: int
) -> np.ndarray:
  """Returns int64 [num]: a random order of range(num), the same for ever.

  The raw bits of Philox are a stream that NumPy promises never to change
  (NEP 19); `Generator.permutation` is not. A stable sort settles equal ones.
  """
  text = f"paws_jax {purpose} seed={seed} class={class_id}"
  digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
  bits = np.random.Philox(key=int.from_bytes(digest, "little"))
  return np.argsort(bits.random_raw(num), kind="stable")


def members_by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
  """Returns for each class the increasing rows (int64) that carry it."""
  counts = np.bincount(labels, minlength=num_classes)
  return np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])


def stratified(
  labels: np.ndarray,
  *,
  labels_per_class: int,
  split_seed: int,
  num_classes: int,
  class_names: Sequence[str] | None = None,
) -> np.ndarray:
  """Draws the same number of images of each class, without replacement.

  The order in which a class gives up its images is a function of
  (`split_seed`, class) and of its size alone, and the first
  `labels_per_class` are taken: a smaller draw is part of every larger one.

  Args:
    labels: integers [n] in [0, num_classes).
    labels_per_class: at least 1.
    split_seed: any integer.
    num_classes: number of classes.
    class_names: names for error messages.

  Returns:
    int32 [num_classes * labels_per_class], increasing.

  Raises:
    ValueError: a label out of range; a class with too few images.
  """
  if labels_per_class < 1:
    raise ValueError(
      f"data.labels_per_class = {labels_per_class}, but a class needs at "
      "least 1 labelled image: raise it, or give a data.labels_file"
    )
  labels = _checked_labels(labels, num_classes)
  chosen = []
  for class_id, members in enumerate(members_by_class(labels, num_classes)):
    if len(members) < labels_per_class:
      name = _describe_class(class_id, class_names)
      raise ValueError(
        f"class {name} has {len(members)} training images, but "
        f"data.labels_per_class = {labels_per_class}: lower it, or add images "
        "of the class"
      )
    order = draw_order(
      len(members), purpose="labelled", seed=split_seed, class_id=class_id
    )
    chosen.append(members[order[:labels_per_class]])
  return np.sort(np.concatenate(chosen)).astype(np.int32)


def from_file(
  path: str | os.PathLike[str],
  *,
  num_images: int,
  labels: np.ndarray,
  num_classes: int,
  class_names: Sequence[str] | None = None,
) -> np.ndarray:
  """Reads labelled rows of the training set from a text file.

  One index a line, counted from 0; what follows a "#" and blank lines are
  ignored. The classes need not be equally represented, but each must be.

  Args:
    path: the file, in UTF-8.
    num_images: size of the training set.
    labels: integers [num_images] in [0, num_classes).
    num_classes: number of classes.
    class_names: names for error messages.

  Returns:
    int32 [m], increasing.

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: names a bad or repeated line, or the classes without a label.
  """
  labels = _checked_labels(labels, num_classes)
  if len(labels) != num_images:
    raise ValueError(
      f"labels holds {len(labels)} entries, but num_images = {num_images}: "
      "pass the labels of the whole training set"
    )
  ids = np.sort(np.asarray(_read_ids(path, num_images), np.int32))
  counts = np.bincount(labels[ids], minlength=num_classes)
  missing = np.flatnonzero(counts == 0).tolist()
  if missing:
    listed = ", ".join(
      _describe_class(c, class_names) for c in missing[:_MAX_LISTED_CLASSES]
    )
    more = len(missing) - _MAX_LISTED_CLASSES
    raise ValueError(
      f"data.labels_file = {os.fspath(path)!r} labels "
      f"{num_classes - len(missing)} of {num_classes} classes; add an image "
      f"of each of these: {listed}" + (f", {more} more" if more > 0 else "")
    )
  return ids


def split_hash(fingerprint: str, labelled_ids: np.ndarray) -> str:
  """Returns hex sha256 of a data set's fingerprint and the sorted ids."""
  ids = ",".join(str(i) for i in np.sort(labelled_ids).tolist())
  return hashlib.sha256(f"{fingerprint}\n{ids}\n".encode()).hexdigest()


def _read_ids(path: str | os.PathLike[str], num_images: int) -> list[int]:
  """Returns the indices of a file in its order; raises as `from_file`."""
  if not os.path.isfile(path):
    raise FileNotFoundError(
      f"data.labels_file = {os.fspath(path)!r} is not a file: give the path "
      "of a list of training rows, one a line"
    )
  first_line: dict[int, int] = {}
  # A stray byte becomes a character that fails below, with its line number;
  # utf-8-sig skips the mark that editors on Windows put at the start.
  with open(path, encoding="utf-8-sig", errors="replace") as lines:
    for number, line in enumerate(lines, start=1):
      text = line.partition("#")[0].strip()
      if not text:
        continue
      where = f"data.labels_file = {os.fspath(path)!r}, line {number}"
      # Stricter than int(), which also takes "1_000" and other digits.
      if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(
          f"{where}: {text[:40]!r} is not an integer: write one row number a "
          "line"
        )
      index = int(text)
      if not 0 <= index < num_images:
        raise ValueError(
          f"{where}: index {index} is out of range for {num_images} training "
          f"images: rows count from 0 to {num_images - 1}"
        )
      if index in first_line:
        raise ValueError(
          f"{where}: index {index} already stands in line "
          f"{first_line[index]}: remove one of the two"
        )
      first_line[index] = number
  return list(first_line)


def _checked_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns labels as an array after checking dtype, rank and range."""
  labels = np.asarray(labels)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise ValueError(
      f"labels is {labels.dtype} of rank {labels.ndim}, but must be integers "
      "of rank 1: pass class numbers, not rows of a one-hot matrix"
    )
  bad = (labels < 0) | (labels >= num_classes)
  if np.any(bad):
    at = int(np.argmax(bad))
    raise ValueError(
      f"labels[{at}] = {labels[at]} is outside [0, {num_classes}), as are "
      f"{int(bad.sum()) - 1} others: number the classes from 0"
    )
  return labels


def _describe_class(class_id: int, class_names: Sequence[str] | None) -> str:
  """Returns e.g. "3 ('cat')"; only the number where there are no names."""
  return (
    f"{class_id} ({class_names[class_id]!r})" if class_names else f"{class_id}"
  )
