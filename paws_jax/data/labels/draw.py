"""Random draws of labelled images, as functions of the seed alone.

They do not depend on the number of devices, the version of NumPy or the order
of computation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.data.sources import catalog

_MAX_LISTED_CLASSES = 20


def draw_order(
  num: int, *, purpose: str, seed: int, class_id: int
) -> np.ndarray:
  """Returns int64 [num], a random order of range(num) that never changes.

  NumPy promises that the raw bits of Philox never change (NEP 19), but makes
  no such promise for `Generator.permutation`. The sort is stable for ties.
  """
  text = f"paws_jax {purpose} seed={seed} class={class_id}"
  digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
  bits = np.random.Philox(key=int.from_bytes(digest, "little"))
  return np.argsort(bits.random_raw(num), kind="stable")


def members_by_class(labels: np.ndarray, num_classes: int) -> list[np.ndarray]:
  """Returns the increasing rows (int64) of each class."""
  order = np.argsort(labels, kind="stable")
  # Rows without a label, which have -1, come first.
  order = order[np.count_nonzero(labels < 0) :]
  counts = np.bincount(labels[order], minlength=num_classes)
  return np.split(order, np.cumsum(counts)[:-1])


def stratified(
  labels: np.ndarray,
  *,
  labels_per_class: int,
  split_seed: int,
  num_classes: int,
  labels_fraction: float = 0.0,
  class_names: Sequence[str] | None = None,
) -> np.ndarray:
  """Draws the same number or share of images of each class, each image once.

  The images of a class are ordered by a function of (`split_seed`, class) and
  of its size alone, and the first are taken: a smaller draw, by number or by
  share, is part of every larger one.

  Args:
    labels: integers [n] in [-1, num_classes); rows with -1 are never drawn.
    labels_per_class: at least 1; or 0, for a share.
    split_seed: any integer.
    num_classes: number of classes.
    labels_fraction: in (0, 1]; of the n_c labelled images of a class,
      round(labels_fraction * n_c) are drawn (halves round to even), and at
      least 1. 0.0 for a number.
    class_names: names for error messages.

  Returns:
    int32 [m], increasing; m = num_classes * labels_per_class for a number.

  Raises:
    ValueError: a label is out of range, a class has too few images, or both a
      number and a share, or neither, are given.
  """
  _check_amount(labels_per_class, labels_fraction)
  labels = check_labels(labels, num_classes)
  chosen = []
  for class_id, members in enumerate(members_by_class(labels, num_classes)):
    wanted = max(1, labels_per_class or round(labels_fraction * len(members)))
    if len(members) < wanted:
      name = _describe_class(class_id, class_names)
      field = f"data.labels_per_class = {labels_per_class}"
      if labels_fraction:
        field = f"data.labels_fraction = {labels_fraction:g} needs at least 1"
      raise errors.InputError(
        f"class {name} has {len(members)} labelled training images, but "
        f"{field}: lower it, or add images of the class"
      )
    order = draw_order(
      len(members), purpose="labelled", seed=split_seed, class_id=class_id
    )
    chosen.append(members[order[:wanted]])
  return np.sort(np.concatenate(chosen)).astype(np.int32)


def _check_amount(labels_per_class: int, labels_fraction: float) -> None:
  """Refuses both or neither of the two, and impossible values."""
  if labels_fraction and labels_per_class:
    raise errors.InputError(
      f"data.labels_per_class = {labels_per_class} and data.labels_fraction = "
      f"{labels_fraction:g} exclude each other: set one of them to 0"
    )
  if not 0 <= labels_fraction <= 1:
    raise errors.InputError(
      f"data.labels_fraction = {labels_fraction:g}, but must be in [0, 1]: "
      "0.1 labels a tenth of each class"
    )
  if labels_per_class < 1 and not labels_fraction:
    raise errors.InputError(
      f"data.labels_per_class = {labels_per_class}, but a class needs at "
      "least 1 labelled image: raise it, or give a data.labels_file"
    )


def class_counts(
  where: str,
  labels: np.ndarray,
  *,
  num_classes: int,
  class_names: Sequence[str] | None,
) -> np.ndarray:
  """Counts the labels of each class; refuses a class without any."""
  counts = np.bincount(labels, minlength=num_classes)
  missing = np.flatnonzero(counts == 0).tolist()
  if missing:
    listed = text_lib.first_few(
      (_describe_class(c, class_names) for c in missing),
      most=_MAX_LISTED_CLASSES,
    )
    raise errors.InputError(
      f"{where} labels {num_classes - len(missing)} of {num_classes} classes; "
      f"add an image of each of these: {listed}"
    )
  return counts


def check_labels(labels: np.ndarray, num_classes: int) -> np.ndarray:
  """Returns labels as an array; refuses another dtype, rank or range."""
  labels = np.asarray(labels)
  if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
    raise errors.InputError(
      f"labels are {labels.dtype} of rank {labels.ndim}, but must be integers "
      "of rank 1: pass class numbers, not rows of a one-hot matrix"
    )
  bad = (labels < catalog.UNLABELLED) | (labels >= num_classes)
  if np.any(bad):
    at = int(np.argmax(bad))
    raise errors.InputError(
      f"labels[{at}] = {labels[at]} is outside [-1, {num_classes}), as are "
      f"{int(bad.sum()) - 1} others: number the classes from 0, and mark "
      "images without a label with -1"
    )
  return labels


def _describe_class(class_id: int, class_names: Sequence[str] | None) -> str:
  """Returns e.g. "3 ('cat')", or the number alone without names."""
  return (
    f"{class_id} ({class_names[class_id]!r})" if class_names else f"{class_id}"
  )
