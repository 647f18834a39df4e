"""Accuracy of the pixels themselves, which a trained encoder should exceed.

The labelled images classify the others as in the protocols, but by the pixels
of small versions of the images: by soft nearest neighbors, by the nearest image
and by logistic regression.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import numpy as np

from paws_jax.data import dataset as dataset_lib
from paws_jax.data.labels import copies as copies_lib
from paws_jax.evaluation import linear_probe
from paws_jax.evaluation import neighbors
from paws_jax.evaluation import protocols
from paws_jax.evaluation import soft_nn as soft_nn_lib

# Longest sides of the small versions: for neighbors, for logistic regression.
SIDE, PROBE_SIDE = 32, 16
# Of more labelled images, or more images to classify, so many are drawn.
MOST_IMAGES = 10_000

# By the start of their fields in the result of a run.
TITLES = {
  "raw_pixel_": "soft NN on raw pixels",
  "raw_pixel_1nn_": "1-NN on raw pixels",
  "raw_pixel_logistic_": "logistic regression on raw pixels",
}

# Images read and reduced at once.
_CHUNK_SIZE = 256


def outcomes(
  dataset: dataset_lib.Dataset, part: str, *, temperature: float, seed: int
) -> Iterator[protocols.Outcome]:
  """Classifies images by the pixels of the labelled ones.

  Args:
    dataset: in memory or on disk; its images are read.
    part: "test" or "validation"; "labelled": each by the others, of which
      some class needs two.
    temperature: τ of the soft vote.
    seed: of the images that are drawn where there are too many, and of the
      folds of the labelled images.

  Yields:
    Soft NN, 1-NN and logistic regression.

  Raises:
    errors.BadImageError: a test or validation image cannot be read.
  """
  num_classes, itself = dataset.num_classes, part == "labelled"
  queries = supports = _small_images(dataset.labelled, seed, itself)
  if not itself:
    queries = _small_images(getattr(dataset, part), seed)
  outcome = functools.partial(
    protocols.Outcome, part=part, labels=queries.labels, num_classes=num_classes
  )
  rows, voters = _flat(queries.pixels), _flat(supports.pixels)
  copies = supports.copies
  probabilities = soft_nn_lib.soft_nn_probabilities(
    rows,
    voters,
    supports.labels,
    num_classes=num_classes,
    temperature=temperature,
    leave_one_out=itself,
    copies=copies,
  )
  yield outcome(
    title=TITLES["raw_pixel_"],
    protocol="pixels_soft_nn",
    settings={"embedding": "pixels", "temperature": temperature},
    ranks=protocols.ranked(probabilities),
    probabilities=probabilities,
  )
  _, near = neighbors.nearest(rows, voters, 1, excluded=copies, copies=copies)
  yield outcome(
    title=TITLES["raw_pixel_1nn_"],
    protocol="pixels_knn",
    settings={"embedding": "pixels", "k": 1},
    ranks=supports.labels[near],
  )
  probabilities = _logistic(queries, supports, num_classes, seed)
  yield outcome(
    title=TITLES["raw_pixel_logistic_"],
    protocol="pixels_logistic",
    settings={"embedding": "pixels", "strength": linear_probe.FIXED_STRENGTH},
    ranks=protocols.ranked(probabilities),
    probabilities=probabilities,
  )


class _SmallImages(NamedTuple):
  """Small versions of images.

  Attributes:
    pixels: float32 [n, h, w, Ch] from 0 to 1.
    labels: int [n].
    copies: int [n], see `labels.copies`, of images that classify each other;
      None: they classify others.
  """

  pixels: np.ndarray
  labels: np.ndarray
  copies: np.ndarray | None


def _small_images(
  images: dataset_lib.LabelledImages, seed: int, each_other: bool = False
) -> _SmallImages:
  """Returns small versions of the images that can be read, or of some."""
  places = np.flatnonzero(images.readable)
  if len(places) > MOST_IMAGES:
    rng = np.random.default_rng(seed)
    places = np.sort(rng.choice(places, MOST_IMAGES, replace=False))
  small = [
    reduce(images.images[places[first : first + _CHUNK_SIZE]], SIDE)
    for first in range(0, len(places), _CHUNK_SIZE)
  ]
  return _SmallImages(
    np.concatenate(small),
    images.labels[places],
    copies_lib.among(images.copies, places) if each_other else None,
  )


def reduce(images: np.ndarray, side: int) -> np.ndarray:
  """Reduces images to a longest side by the means of areas.

  Args:
    images: [n, h, w, Ch], uint8, or float from 0 to 1.
    side: longest side; smaller images keep their size.

  Returns:
    float32 [n, h', w', Ch] from 0 to 1.
  """
  scaled = images.astype(np.float32)
  if images.dtype == np.uint8:
    scaled /= 255
  longest = max(images.shape[1:3])
  if longest <= side:
    return scaled
  rows, columns = (
    _area_means(size, max(1, round(size * side / longest)))
    for size in images.shape[1:3]
  )
  return np.einsum(
    "ih,nhwc,jw->nijc", rows, scaled, columns, optimize=True
  ).astype(np.float32)


def _area_means(old: int, new: int) -> np.ndarray:
  """Returns weights [new, old]: each row averages an equal share of `old`."""
  edges = np.arange(new + 1) * old / new
  pixels = np.arange(old)
  overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(
    edges[:-1, None], pixels
  )
  return (np.maximum(overlap, 0) * new / old).astype(np.float32)


def _flat(images: np.ndarray) -> np.ndarray:
  return images.reshape(len(images), -1)


def _logistic(
  queries: _SmallImages,
  supports: _SmallImages,
  num_classes: int,
  seed: int,
) -> np.ndarray:
  """Returns probabilities [n, K] by logistic regression on the supports.

  If the queries are the supports, each is judged by the folds without it.
  """
  settings: dict[str, Any] = {
    "num_classes": num_classes,
    "seed": seed,
    # Choosing the penalty would take thirty times as long.
    "strength": linear_probe.FIXED_STRENGTH,
  }
  rows, fitted = (
    _flat(reduce(images.pixels, PROBE_SIDE)) for images in (queries, supports)
  )
  labels, copies = supports.labels, supports.copies
  if copies is None:
    return linear_probe.fit(fitted, labels, **settings).probabilities(rows)
  # The only image of a class is in no fold: without it, it cannot be right.
  folds = np.maximum(linear_probe.deal(labels, seed=seed, copies=copies), 0)
  probabilities = np.zeros((len(labels), num_classes), np.float32)
  for fold in np.unique(folds):
    out = folds == fold
    probe = linear_probe.fit(fitted[~out], labels[~out], **settings)
    probabilities[out] = probe.probabilities(rows[out])
  return probabilities
