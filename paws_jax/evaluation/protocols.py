"""The protocols of an evaluation, from embeddings to ranked classes."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax.evaluation import accuracy
from paws_jax.evaluation import calibration
from paws_jax.evaluation import linear_probe
from paws_jax.evaluation import neighbors
from paws_jax.evaluation import soft_nn as soft_nn_lib

# Neighbors that are asked for; of fewer labelled images all of them.
NEIGHBORS = (1, 20)
# What a linear probe is put on.
PROBED = ("trunk", "h")
_MOST = 5


@dataclasses.dataclass(frozen=True, eq=False)
class EmbeddedImages:
  """Images of a part of the data, as the encoder sees them.

  Attributes:
    layers: float32 [n, ·] each: "trunk", the features before the heads; "h",
      after the projection head, if there is one; "z", after the last head.
    labels: int [n].
    copies: int [n], place of the first image with the same contents; None:
      there are no copies.
  """

  layers: Mapping[str, np.ndarray]
  labels: np.ndarray
  copies: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Outcome:
  """What a protocol says of every image that it was asked about.

  Attributes:
    title: for a reader, in a few words.
    protocol: its name in results.json.
    part: of the data: "test", "validation" or "labelled".
    settings: what a result row adds, JSON-serializable.
    ranks: int [n, min(5, K)]: classes, the best first.
    labels: int [n], the true classes.
    num_classes: K.
    probabilities: float [n, K], or None where a protocol gives none.
  """

  title: str
  protocol: str
  part: str
  settings: Mapping[str, Any]
  ranks: np.ndarray
  labels: np.ndarray
  num_classes: int
  probabilities: np.ndarray | None = None

  def top(self, k: int) -> float:
    """Fraction of images whose label is among the first k classes."""
    return float((self.ranks[:, :k] == self.labels[:, None]).any(-1).mean())

  @functools.cached_property
  def confusion(self) -> np.ndarray:
    """Counts [K, K]: rows are true classes."""
    return accuracy.confusion_matrix(
      self.ranks[:, 0], self.labels, num_classes=self.num_classes
    )

  @functools.cached_property
  def calibration(self) -> calibration.Calibration | None:
    """Of the probabilities, if there are any."""
    if self.probabilities is None:
      return None
    return calibration.calibrate(self.probabilities, self.labels)


def held_out(
  part: str,
  queries: EmbeddedImages,
  supports: EmbeddedImages,
  *,
  num_classes: int,
  temperature: float,
  seed: int,
) -> Iterator[Outcome]:
  """Runs all protocols that judge images by the labelled ones.

  Args:
    part: what the queries are: "test" or "validation".
    queries: at least one; their labels serve to count, for nothing else.
    supports: the labelled images.
    num_classes: K.
    temperature: τ of the soft vote.
    seed: of the folds by which a linear probe is regularized.

  Yields:
    soft_nn; knn for every k; linear_probe for every layer.

  Raises:
    ValueError: for embeddings that are not finite.
  """
  yield soft_nn(
    part,
    queries,
    supports,
    num_classes=num_classes,
    temperature=temperature,
  )
  yield from knn(part, queries, supports, num_classes=num_classes)
  for layer in PROBED:
    if layer not in queries.layers:
      continue
    yield _linear_probe(
      part, layer, queries, supports, num_classes=num_classes, seed=seed
    )


def soft_nn(
  part: str,
  queries: EmbeddedImages,
  supports: EmbeddedImages,
  *,
  num_classes: int,
  temperature: float,
) -> Outcome:
  """The vote of the supports by z; of "labelled" ones leaving one out.

  Args:
    part: what the queries are; if "labelled", they are the supports.
    queries: at least one.
    supports: the labelled images.
    num_classes: K.
    temperature: τ.

  Raises:
    ValueError: for embeddings that are not finite.
  """
  itself = part == "labelled"
  probabilities = soft_nn_lib.soft_nn_probabilities(
    queries.layers["z"],
    supports.layers["z"],
    supports.labels,
    num_classes=num_classes,
    temperature=temperature,
    leave_one_out=itself,
    copies=supports.copies if itself else None,
  )
  return Outcome(
    title="leave-one-out, labelled" if itself else "soft NN",
    protocol="leave_one_out" if itself else "soft_nn",
    part=part,
    settings={"embedding": "z", "temperature": temperature},
    ranks=ranked(probabilities),
    labels=queries.labels,
    num_classes=num_classes,
    probabilities=probabilities,
  )


def knn(
  part: str,
  queries: EmbeddedImages,
  supports: EmbeddedImages,
  *,
  num_classes: int,
) -> Iterator[Outcome]:
  """The majority of the nearest by z, for every k; arguments of `soft_nn`."""
  total = len(supports.labels)
  cosines, numbers = neighbors.nearest(
    queries.layers["z"], supports.layers["z"], min(max(NEIGHBORS), total)
  )
  for wanted in NEIGHBORS:
    k = min(wanted, total)
    settings = {"embedding": "z", "k": k}
    if k < wanted:
      settings["k_wanted"] = wanted
    yield Outcome(
      title=f"{k}-NN"
      + (f" (all labelled, not {wanted})" if k < wanted else ""),
      protocol="knn",
      part=part,
      settings=settings,
      ranks=neighbors.majority(
        cosines[:, :k],
        supports.labels[numbers[:, :k]],
        num_classes=num_classes,
        most=_MOST,
      ),
      labels=queries.labels,
      num_classes=num_classes,
    )


def _linear_probe(
  part: str,
  layer: str,
  queries: EmbeddedImages,
  supports: EmbeddedImages,
  *,
  num_classes: int,
  seed: int,
) -> Outcome:
  """Logistic regression on a layer, fitted to the supports."""
  probe = linear_probe.fit(
    supports.layers[layer],
    supports.labels,
    num_classes=num_classes,
    seed=seed,
    copies=supports.copies,
  )
  probabilities = probe.probabilities(queries.layers[layer])
  return Outcome(
    title=f"linear probe, {layer}",
    protocol="linear_probe",
    part=part,
    settings={
      "embedding": layer,
      "strength": probe.strength,
      "num_folds": probe.num_folds,
      "num_left_out": probe.num_left_out,
    },
    ranks=ranked(probabilities),
    labels=queries.labels,
    num_classes=num_classes,
    probabilities=probabilities,
  )


def ranked(probabilities: np.ndarray) -> np.ndarray:
  """The most probable classes; of equals the lower number first."""
  order = np.argsort(-probabilities, axis=-1, kind="stable")
  return order[:, :_MOST]
