"""Embeddings and accuracies of a run's states while it trains."""

from __future__ import annotations

import numpy as np

from paws_jax.evaluation import class_head
from paws_jax.training import estimated_prior
from paws_jax.training import experiment as experiment_lib
from paws_jax.training import measure
from paws_jax.training import pseudo_labels
from paws_jax.training import purity
from paws_jax.training import state as state_lib


class Evaluator:
  """Evaluates states; embeds each part of the data only once a step."""

  def __init__(self, experiment: experiment_lib.Experiment):
    self._experiment = experiment
    self._step = -1
    self._embeddings: dict[str, np.ndarray] = {}
    self.purity = purity.Purity(experiment)

  def monitored_accuracy(
    self, state: state_lib.TrainState, step: int
  ) -> dict[str, float]:
    """Returns the accuracies to show while training, as fractions.

    Returns:
      {"top1", "top5"} on the monitored part of the data; empty when it cannot
      be measured.
    """
    dataset = self._experiment.dataset
    part = dataset.monitored_part
    if not dataset.labelled:
      return {}
    if part == "labelled" and not measure.can_leave_one_out(self._experiment):
      return {}
    queries, supports = self._embed(state, step, part, "labelled")
    return measure.soft_nn(self._experiment, part, queries, supports)

  def class_head_accuracy(
    self, state: state_lib.TrainState, step: int
  ) -> dict[str, float]:
    """Returns the accuracy of a trained classifier on unseen images.

    Returns:
      {"class_head_top1", "class_head_top5"}; empty without such a layer, or
      without validation and test images.
    """
    part = self._experiment.dataset.monitored_part
    head = measure.class_head(self._experiment, state)
    if head is None or part == "labelled":
      return {}
    (features,) = self._embed(state, step, part)
    labels = getattr(self._experiment.dataset, part).labels
    found = class_head.accuracies(head, features, labels)
    return {f"class_head_{name}": value for name, value in found.items()}

  def pseudo_label_accuracy(
    self, state: state_lib.TrainState, step: int
  ) -> dict[str, float]:
    """Returns `pseudo_labels.accuracy`; empty without hidden labels."""
    if pseudo_labels.hidden_part(self._experiment.dataset) is None:
      return {}
    queries, supports = self._embed(state, step, "hidden", "labelled")
    return pseudo_labels.accuracy(self._experiment, queries, supports)

  def monitored(
    self, state: state_lib.TrainState, step: int
  ) -> dict[str, float]:
    """Returns metrics beside the soft-NN accuracy, those that the run has."""
    return {
      **self.class_head_accuracy(state, step),
      **self.pseudo_label_accuracy(state, step),
      **self.purity(state, step),
      **estimated_prior.scalars(state),
    }

  def embeddings(
    self, state: state_lib.TrainState, step: int
  ) -> dict[str, np.ndarray]:
    """Embeds the labelled, validation and test images: {part: [n, D]}."""
    parts = ("labelled", "validation", "test")
    rows = self._embed(state, step, *parts)
    return dict(zip(parts, rows, strict=True))

  def _embed(
    self, state: state_lib.TrainState, step: int, *parts: str
  ) -> list[np.ndarray]:
    if self._step != step:
      self._step, self._embeddings = step, {}
    variables = self._experiment.trainer.method.encoder_variables(state)
    for part in parts:
      if part not in self._embeddings:
        self._embeddings[part] = measure.embed(
          self._experiment, variables, part, step=step
        )
    return [self._embeddings[part] for part in parts]
