"""Scores of the encoder of a cell, by the labelled images.

Soft nearest neighbors compare the output of the heads, as evaluation and saved
classifiers do; the nearest neighbor and the linear probe stand on the features
of the trunk, which methods with a head of their own are meant for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import numpy as np

from benchmarks.compare import data as comparison_data
from paws_jax import config as config_lib
from paws_jax import losses
from paws_jax import models
from paws_jax.evaluation import class_head
from paws_jax.evaluation import embed
from paws_jax.evaluation import linear_probe
from paws_jax.evaluation import neighbors
from paws_jax.evaluation import soft_nn
from paws_jax.tasks import evaluate
from paws_jax.training import experiment as experiment_lib

# Where a method has none of its own: any will do, the order stays the same.
_TEMPERATURE = 3.0
# Of (params, batch_stats, images): features of the trunk, and of the heads.
Embedder = Callable[[Any, Any, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Embeddings(NamedTuple):
  """Of the images of an experiment: features of the trunk, and of the heads."""

  test: tuple[np.ndarray, np.ndarray]
  labelled: tuple[np.ndarray, np.ndarray]


def embedder(
  recipe: config_lib.Recipe, built: experiment_lib.Experiment
) -> Embedder:
  """Compiles the way from images to both embeddings."""
  encoder = models.create(recipe.model)
  dataset, width = built.dataset, recipe.model.output_dim
  parts = (encoder.projection, encoder.prediction)
  heads = sum(part is not None for part in parts)
  layers = embed.make_embedder(
    encoder,
    view=dataset.eval_view,
    batch_size=recipe.eval.batch_size,
    mesh=built.trainer.mesh,
    resize=dataset.resize,
    layers=evaluate.all_layers,
  )

  def both(
    params: Any, batch_stats: Any, images: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    rows = layers(params, batch_stats, images)
    if not heads:
      return rows, rows
    return rows[:, : -heads * width], rows[:, -width:]

  return both


def embed_parts(
  embed_images: Embedder,
  variables: dict[str, Any],
  built: experiment_lib.Experiment,
) -> Embeddings:
  """Embeds the images that scores are of.

  Args:
    embed_images: of `embedder`.
    variables: {"params", "batch_stats"} of the encoder.
    built: its data.
  """
  dataset = built.dataset
  return Embeddings(
    test=embed_images(**variables, images=dataset.test.images),
    labelled=embed_images(**variables, images=dataset.labelled.images),
  )


def frozen(
  embeddings: Embeddings, built: experiment_lib.Experiment
) -> dict[str, float]:
  """Judges the test images by an encoder that is not trained any further.

  Args:
    embeddings: of `embed_parts`.
    built: the data.

  Returns:
    Fractions that are right: "knn", by the nearest labelled image; "linear", by
    the linear probe; "soft_nn", by the vote.
  """
  dataset = built.dataset
  labels, truth = dataset.labelled.labels, dataset.test.labels
  (queries, _), (supports, _) = embeddings
  _, numbers = neighbors.nearest(queries, supports, 1)
  probe = linear_probe.fit(
    supports,
    labels,
    num_classes=dataset.num_classes,
    seed=0,
    copies=dataset.labelled.copies,
  )
  linear = probe.probabilities(queries).argmax(axis=-1)
  return {
    "knn": float((labels[numbers[:, 0]] == truth).mean()),
    "linear": float((linear == truth).mean()),
    "soft_nn": vote(embeddings, built),
  }


def classify(
  embeddings: Embeddings, head: Any, built: experiment_lib.Experiment
) -> dict[str, float]:
  """Judges the test images by a class head: {"class_head"}; {} without."""
  if head is None:
    return {}
  truth, (features, _) = built.dataset.test.labels, embeddings.test
  found = class_head.accuracies(head, features, truth)
  return {"class_head": found["top1"]}


def vote(embeddings: Embeddings, built: experiment_lib.Experiment) -> float:
  """Judges the test images by soft nearest neighbors; arguments of `frozen`."""
  dataset = built.dataset
  (_, queries), (_, supports) = embeddings
  accuracy = soft_nn.soft_nn_accuracy(
    queries,
    dataset.test.labels,
    supports,
    dataset.labelled.labels,
    num_classes=dataset.num_classes,
    temperature=built.temperature,
  )
  return accuracy["top1"]


def unknown(
  embeddings: Embeddings, others: np.ndarray, *, temperature: float | None
) -> dict[str, float]:
  """Distinguishes test images from those of unknown classes by similarity.

  Args:
    embeddings: of `embed_parts`.
    others: those of images of unknown classes, of the heads.
    temperature: of the in-domain probability; None: the method has none.
  """
  (_, known), (_, supports) = embeddings
  temperature = temperature or _TEMPERATURE
  scores = [_in_domain(rows, supports, temperature) for rows in (known, others)]
  return {
    "auroc": comparison_data.auroc(*scores),
    "num_unknown": len(others),
  }


def _in_domain(
  queries: np.ndarray, supports: np.ndarray, temperature: float
) -> np.ndarray:
  """Probability [n] of being of a known class; falls as novelty rises."""
  similarities, _ = neighbors.nearest(queries, supports, 1)
  return np.asarray(
    losses.in_domain_probability(similarities[:, 0], temperature=temperature)
  )
