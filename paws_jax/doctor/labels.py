"""What the doctor says about classes and their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import text as text_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import findings
from paws_jax.doctor import inspect

# Of more classes, the extremes are told.
_MOST_CLASSES_LISTED = 30


def class_sizes(
  report: findings.Report,
  found: catalog.Catalog,
  labelled_ids: np.ndarray,
  support: Any,
) -> None:
  """Counts images by class; classes with too few labels for a support.

  Args:
    report: where it is said.
    found: the catalogue.
    labelled_ids: int [m], the training images whose label is used.
    support: section `support` of the recipe.
  """
  report.block("Images of each class")
  known = found.train.labels[found.train.labels >= 0]
  counts = {"labelled": _by_class(found, found.train.labels[labelled_ids])}
  counts["unlabelled"] = _by_class(found, known) - counts["labelled"]
  for name in ("val", "test"):
    part = getattr(found, name)
    if part is not None:
      counts[name] = _by_class(found, part.labels)
  if found.num_classes <= _MOST_CLASSES_LISTED:
    _table(report, found.class_names, counts)
  else:
    for name, numbers in counts.items():
      _extremes(report, name, numbers, found.class_names)
  num_unknown = len(found.train.labels) - len(known)
  report.say(f"unlabelled, of no known class: {num_unknown:,}")
  if found.test is None and found.val is None:
    report.warning(
      "there are neither test nor validation images: no accuracy on images "
      "that were held out can be told. Keep some labelled images for that"
    )
  _check_support(report, found.class_names, counts["labelled"], support)


def _by_class(found: catalog.Catalog, classes: np.ndarray) -> np.ndarray:
  return np.bincount(classes, minlength=found.num_classes)


def _table(
  report: findings.Report,
  class_names: Sequence[str],
  counts: dict[str, np.ndarray],
) -> None:
  width = max(len(repr(name)) for name in class_names)
  report.say(" " * width + "".join(f"{name:>12}" for name in counts))
  for k, name in enumerate(class_names):
    numbers = "".join(f"{column[k]:>12,}" for column in counts.values())
    report.say(repr(name).ljust(width) + numbers)


def _extremes(
  report: findings.Report,
  name: str,
  counts: np.ndarray,
  class_names: Sequence[str],
) -> None:
  least, most = int(counts.argmin()), int(counts.argmax())
  report.say(
    f"{name}: {counts.sum():,} images, min {counts[least]:,} "
    f"({class_names[least]!r}), median {np.median(counts):g}, max "
    f"{counts[most]:,} ({class_names[most]!r})"
  )


def _check_support(
  report: findings.Report,
  class_names: Sequence[str],
  counts: np.ndarray,
  support: Any,
) -> None:
  """Classes that cannot fill their places in a support."""
  wanted = support.images_per_class
  few = np.flatnonzero(counts < wanted)
  if not len(few):
    return
  few = few[np.argsort(counts[few], kind="stable")]
  listed = text_lib.first_few(f"{class_names[k]!r} ({counts[k]})" for k in few)
  text = (
    f"{len(few):,} of {len(class_names):,} classes have fewer labelled images "
    f"than support.images_per_class = {wanted}: {listed}"
  )
  if support.with_replacement:
    report.say(f"{text}; theirs stand in several times")
    return
  worst = class_names[int(counts.argmin())]
  report.problem(
    f"{text}. Lower images_per_class, label more, or set "
    "support.with_replacement",
    refused_as=f"class {worst!r} has",
  )


def class_names(report: findings.Report, found: catalog.Catalog) -> None:
  """Names that suggest a mistake: the wrong folders, or one class as two."""
  class_names = found.class_names
  below = inspect.subfolders(found.train.images)
  suspects = inspect.split_names(class_names)
  listed = text_lib.first_few(map(repr, suspects))
  deeper = f". All images lie deeper, in {text_lib.first_few(map(repr, below))}"
  if len(class_names) < 2:
    report.problem(
      f"{found.name} has 1 class, {class_names[0]!r}, but needs at least 2: "
      "give every class a folder (or, in a manifest, a label) of its own"
      + (
        f"{deeper}: if these are the classes, add {class_names[0]!r} to "
        "data.dir"
        if below
        else ""
      ),
      refused_as=f"{found.name} has 1 class",
    )
  elif len(suspects) == len(class_names):
    report.problem(
      f"the classes {listed} look like parts of a data set, one level above "
      "the classes: set data.dir to the folder that holds one folder for every "
      "class, and name the others in data.test_dir and data.unlabelled_dir"
      + (deeper if below else "")
    )
  elif suspects:
    report.warning(
      f"{listed} as the name of a class looks like a part of a data set: move "
      "unlabelled images out of data.dir and name their folder in "
      "data.unlabelled_dir, test images in data.test_dir"
    )
  for alike in inspect.similar_names(class_names):
    report.warning(
      f"the classes {' and '.join(map(ascii, alike))} differ only in case, "
      "spaces or Unicode form, but count as different ones: give them one name "
      "if they are the same"
    )
