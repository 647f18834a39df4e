"""How good the pseudo-labels are, on training images whose label is hidden.

Some data sets come with the labels of all their training images, of which a run
uses a few. The others tell how often images that the run trains on get the
right class. That is only watched: these labels reach neither the loss nor the
choice of anything, and there is no path from here to a train step.
"""

from __future__ import annotations

import numpy as np

from paws_jax.data import dataset as dataset_lib
from paws_jax.evaluation import soft_nn
from paws_jax.training import experiment as experiment_lib


def hidden_part(
  dataset: dataset_lib.Dataset,
) -> dataset_lib.LabelledImages | None:
  """The part of a data set whose labels are hidden; None where none is known.

  It must not be trained on: it is for `accuracy` alone.
  """
  return dataset.hidden


def accuracy(
  experiment: experiment_lib.Experiment,
  queries: np.ndarray,
  supports: np.ndarray,
) -> dict[str, float]:
  """Share of the images with a hidden label whose soft-NN class is that label.

  Args:
    experiment: the labels and the temperature.
    queries: [n, D] embeddings of the images of `of`.
    supports: [N, D] embeddings of the labelled images.

  Returns:
    {"pseudo_label_accuracy": a fraction}; empty when no image can be read.
  """
  dataset = experiment.dataset
  part, labelled = hidden_part(dataset), dataset.labelled
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
