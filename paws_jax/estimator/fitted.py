"""The classifier of a fit, and the user's values for its classes.

Both are stored in the classifier, so that a saved one is enough.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax.classifier import classifier as classifier_lib
from paws_jax.estimator import images as images_lib
from paws_jax.estimator import labels as labels_lib
from paws_jax.estimator import training
from paws_jax.runs import files
from paws_jax.runs import workdir as workdir_lib
from paws_jax.training import save_classifier

# In the origin of a classifier.
_ORIGIN = "estimator"


def describe(
  made: classifier_lib.Classifier,
  data: training.Data,
  params: Mapping[str, Any],
) -> classifier_lib.Classifier:
  """Adds to the origin of a classifier what an estimator restores.

  Args:
    made: the classifier of a run.
    data: X and y.
    params: parameters of the estimator, as JSON stores them.
  """
  stored = dict(params)
  if data.labels is not None:
    stored["classes"] = _values(made, data.labels)
    stored["rows"] = _rows(made, data.images)
  origin = {**made.origin, _ORIGIN: stored}
  return dataclasses.replace(made, origin=origin)


def load(path: str | os.PathLike[str]) -> classifier_lib.Classifier:
  """Reads the classifier in a directory: its own, or that of a run."""
  place = files.resolve(path)
  inner = place / workdir_lib.CLASSIFIER
  return classifier_lib.Classifier.load(inner if inner.is_dir() else place)


def save(made: classifier_lib.Classifier, workdir: str) -> None:
  """Writes a classifier in place of that of its run."""
  place = files.resolve(workdir) / workdir_lib.CLASSIFIER
  save_classifier.save(made, place)


def stored_in(made: classifier_lib.Classifier) -> dict[str, Any]:
  """Returns what `describe` has stored; {} for a classifier of a command."""
  return made.origin.get(_ORIGIN) or {}


def classes(made: classifier_lib.Classifier) -> list[Any]:
  """The user's value of each class, in the classifier's order."""
  values = stored_in(made).get("classes", [])
  # A class that was added to it has no other value than its name.
  names = list(made.class_names)
  return values if len(values) == len(names) else names


def _values(
  made: classifier_lib.Classifier, labels: labels_lib.Labels
) -> list[Any]:
  values = labels.classes.tolist()
  by_name = dict(zip(labels.names, values, strict=True))
  if not set(made.class_names) <= set(by_name):
    listed = labels_lib.table_names(labels.names)
    by_name = dict(zip(listed, values, strict=True))
  return [by_name[name] for name in made.class_names]


def _rows(made: classifier_lib.Classifier, images: Any) -> list[int]:
  """The row of X of each labelled image of a classifier."""
  names = made.support_bank.names
  if isinstance(images, images_lib.Pixels):
    return [int(name.rpartition(" ")[2]) for name in names]
  root = training.root_of(images)
  rows = {path: row for row, path in enumerate(images.paths)}
  return [rows[os.path.join(root, name)] for name in names]


def columns(made: classifier_lib.Classifier) -> tuple[np.ndarray, np.ndarray]:
  """Returns `classes_`, and the place of each in the classifier."""
  return np.unique(classes(made), return_index=True)


def rows(made: classifier_lib.Classifier) -> np.ndarray | None:
  """Returns `support_`; None where X was a place on disk."""
  found = stored_in(made).get("rows")
  if found is None or len(found) != len(made.support_bank):
    return None
  return np.asarray(found, np.int64)
