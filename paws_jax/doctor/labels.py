"""Findings about classes and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import text as text_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import class_names as names_lib
from paws_jax.doctor import findings

# Of more classes only the extremes are printed.
_MAX_LISTED = 30


def class_sizes(
  report: findings.Report,
  listing: catalog.Catalog,
  labelled_ids: np.ndarray,
  support: Any,
) -> None:
  """Reports the images per class, and classes with too few labels.

  Args:
    report: receives the findings.
    listing: the catalog.
    labelled_ids: int [m], the training images whose label is used.
    support: section `support` of the recipe.
  """
  report.block("Images per class")
  if not len(labelled_ids):
    report.say(
      f"none of the {len(listing.train.labels):,} training images has a label "
      "that is used: only methods without labels can be trained, and accuracy "
      "cannot be measured"
    )
    return
  known = listing.train.labels[listing.train.labels >= 0]
  used = _by_class(listing, listing.train.labels[labelled_ids])
  counts = {
    "label used": used,
    "label unused": _by_class(listing, known) - used,
  }
  for name in ("val", "test"):
    part = getattr(listing, name)
    if part is not None:
      counts[name] = _by_class(listing, part.labels)
  if listing.num_classes <= _MAX_LISTED:
    _table(report, listing.class_names, counts)
  else:
    for name, numbers in counts.items():
      _extremes(report, name, numbers, listing.class_names)
  num_without = len(listing.train.labels) - len(known)
  report.say(f"training images without a label: {num_without:,}")
  if listing.test is None and listing.val is None:
    report.warning(
      "there are neither test nor validation images: accuracy on images "
      "outside the training set cannot be measured. Set some labelled images "
      "aside for it"
    )
  _check_support(report, listing.class_names, used, support)


def _by_class(listing: catalog.Catalog, classes: np.ndarray) -> np.ndarray:
  return np.bincount(classes, minlength=listing.num_classes)


def _table(
  report: findings.Report,
  class_names: Sequence[str],
  counts: dict[str, np.ndarray],
) -> None:
  width = max(len(repr(name)) for name in class_names)
  report.say(" " * width + "".join(f"{name:>14}" for name in counts))
  for k, name in enumerate(class_names):
    numbers = "".join(f"{column[k]:>14,}" for column in counts.values())
    report.say(repr(name).ljust(width) + numbers)


def _extremes(
  report: findings.Report,
  name: str,
  counts: np.ndarray,
  class_names: Sequence[str],
) -> None:
  least, most = int(counts.argmin()), int(counts.argmax())
  report.say(
    f"{name}: {counts.sum():,} images; per class at least {counts[least]:,} "
    f"({class_names[least]!r}), at most {counts[most]:,} "
    f"({class_names[most]!r}), median {np.median(counts):g}"
  )


def _check_support(
  report: findings.Report,
  class_names: Sequence[str],
  counts: np.ndarray,
  support: Any,
) -> None:
  """Reports classes with fewer labels than a support set takes of each."""
  if support.sampling == "uniform":
    return
  needed = support.images_per_class
  few = np.flatnonzero(counts < needed)
  if not len(few):
    return
  few = few[np.argsort(counts[few], kind="stable")].tolist()
  listed = text_lib.first_few(f"{class_names[k]!r} ({counts[k]})" for k in few)
  text = (
    f"{len(few):,} of {len(class_names):,} classes have fewer labelled images "
    f"than support.images_per_class = {needed}: {listed}"
  )
  if support.with_replacement:
    report.say(f"{text}; a support set repeats them")
    return
  worst = class_names[int(counts.argmin())]
  report.problem(
    f"{text}. Lower images_per_class, label more images, or set "
    "support.with_replacement",
    error_start=f"class {worst!r} has",
  )


def class_names(report: findings.Report, listing: catalog.Catalog) -> None:
  """Reports names that suggest a wrong folder, or are no names of classes."""
  class_names = listing.class_names
  if not class_names:
    return
  below = names_lib.subfolders(listing.train.images)
  suspects = names_lib.split_names(class_names)
  listed = text_lib.first_few(map(repr, suspects))
  folders = text_lib.first_few(map(repr, below))
  deeper = f". All images lie one level deeper, in {folders}"
  if len(class_names) < 2:
    report.problem(
      f"{listing.name} has 1 class, {class_names[0]!r}, but needs at least 2: "
      "give each class its own folder (or, in a manifest, its own label)"
      + (
        f"{deeper}: if these are the classes, add {class_names[0]!r} to "
        "data.dir"
        if below
        else ""
      ),
      error_start=f"{listing.name} has 1 class",
    )
  elif len(suspects) == len(class_names):
    report.problem(
      f"the classes {listed} look like parts of a data set, one level above "
      "the classes: set data.dir to the folder that holds one folder per "
      "class, and data.test_dir and data.unlabelled_dir to the others"
      + (deeper if below else "")
    )
  elif suspects:
    report.warning(
      f"the class name {listed} looks like a part of a data set: if these "
      "images are unlabelled or test images, move their folder out of data.dir "
      "and set data.unlabelled_dir or data.test_dir to it (in a table, leave "
      "their label empty, or use the column split)"
    )
  for similar in names_lib.similar_names(class_names):
    report.warning(
      f"the classes {' and '.join(map(ascii, similar))} differ only in case, "
      "spaces, zeros or Unicode form, but count as different classes: give "
      "them one name if they are the same class"
    )
  for warning in listing.warnings:
    report.warning(warning)
