"""The accuracy of an estimator on images that may have labels of their own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import text
from paws_jax.data import load_dataset
from paws_jax.estimator import images as images_lib
from paws_jax.estimator import labels as labels_lib


def with_labels(X: Any, fields: Mapping[str, Any]) -> tuple[Any, Any]:
  """Returns images, and the labels that they have in a folder or table.

  Args:
    X: as of `PawsClassifier.fit`.
    fields: of the recipe, those that have been set.
  """
  images = images_lib.read(X, fields.get("data.dir", ""))
  if isinstance(images, images_lib.Files):
    return X, images.labels
  if isinstance(images, images_lib.Pixels) or not os.path.isdir(images.path):
    return X, None
  section = config_lib.Data(
    source="folder",
    pipeline="host",
    dir=images.path,
    real_labels=fields.get("data.real_labels", ""),
  )
  part = load_dataset.open_catalog(section)
  # A folder's reader has paths.
  found: Any = part.train.images
  names = [part.class_names[code] for code in part.train.labels]
  return [found.path(i) for i in range(len(found))], names


def accuracy(
  predicted: np.ndarray, y: Any, *, classes: np.ndarray, weights: Any = None
) -> float:
  """Computes the share of labelled images that are predicted correctly.

  Args:
    predicted: values of `classes` [n].
    y: labels [n], with missing ones.
    classes: those of the estimator.
    weights: of the images [n]; None: all the same.

  Raises:
    InputError: no image has a label, or labels are of another kind.
  """
  labels = labels_lib.encode(y, num_images=len(predicted), least=1)
  given, known = labels.classes[0], classes[0]
  if isinstance(given, str) != isinstance(known, str):
    raise errors.InputError(
      f"y holds labels such as {given!r}, and those of fit are such as "
      f"{known!r}: give both as texts, or both as numbers."
    )
  labelled = labels.codes >= 0
  right = labels.classes[labels.codes] == predicted
  chosen = None if weights is None else _weights(weights, labelled)
  return float(np.average(right[labelled], weights=chosen))


def _weights(given: Any, labelled: np.ndarray) -> np.ndarray:
  """Returns the weights of the labelled images of n."""
  weights, count = np.asarray(given), len(labelled)
  if weights.shape != (count,):
    raise errors.InputError(
      f"sample_weight has the shape {list(weights.shape)} but X holds "
      f"{text.count(count, 'image')}: give one weight for each, [{count}]."
    )
  weights = weights[labelled]
  if weights.dtype.kind not in "biuf" or not (
    np.isfinite(weights).all() and (weights >= 0).all()
  ):
    raise errors.InputError(
      "sample_weight must hold finite numbers of at least 0, one for each "
      "image."
    )
  if not weights.any():
    raise errors.InputError(
      "sample_weight is 0 for all images that have a label: give some of them "
      "a weight."
    )
  return weights.astype(np.float64)
