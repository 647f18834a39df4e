"""Accuracy of pseudo-labels, on training images whose labels are hidden.

Some data sets come with the labels of all their training images, of which a run
uses a few. The other labels show how often training images get the right class.
They are only for monitoring: neither the loss nor any decision depends on them,
and there is no path from here to a train step.
"""

from __future__ import annotations

import numpy as np

from paws_jax.data import dataset as dataset_lib
from paws_jax.evaluation import soft_nn
from paws_jax.training import experiment as experiment_lib


def hidden_part(
  dataset: dataset_lib.Dataset,
) -> dataset_lib.LabelledImages | None:
  """Returns the images with hidden labels, for `accuracy` alone.

  Returns:
    None where no labels are hidden, or no labelled image can decide.
  """
  return dataset.hidden if dataset.labelled else None


def accuracy(
  experiment: experiment_lib.Experiment,
  queries: np.ndarray,
  supports: np.ndarray,
) -> dict[str, float]:
  """Computes the share of hidden labels that the soft-NN class equals.

  Args:
    experiment: labels and temperature.
    queries: [n, D] embeddings of the images of `hidden_part`.
    supports: [N, D] embeddings of the labelled images.

  Returns:
    {"pseudo_label_accuracy": a fraction}; empty when no image can be read.
  """
  dataset = experiment.dataset
  part, labelled = hidden_part(dataset), dataset.labelled
  assert part is not None
  shown, voting = part.readable, labelled.readable
  if not shown.any():
    return {}
  found = soft_nn.soft_nn_accuracy(
    queries[shown],
    part.labels[shown],
    supports[voting],
    labelled.labels[voting],
    num_classes=dataset.num_classes,
    temperature=experiment.temperature,
  )
  return {"pseudo_label_accuracy": found["top1"]}
