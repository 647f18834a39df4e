"""Measurements on a run's images: embeddings, soft-NN accuracy, the result."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data.labels import copies
from paws_jax.distributed import agree
from paws_jax.evaluation import class_head as class_head_lib
from paws_jax.evaluation import pixel_baselines
from paws_jax.evaluation import result_rows
from paws_jax.evaluation import soft_nn as soft_nn_lib
from paws_jax.monitoring import reference_curves
from paws_jax.plots import training_figure
from paws_jax.training import experiment as experiment_lib

TASK = "pretrain"


@dataclasses.dataclass(frozen=True)
class Spent:
  """Seconds spent on a run so far, earlier processes included."""

  wall_seconds: float = 0.0
  compile_seconds: float = 0.0
  # Steps only: no compilation, evaluation or saving.
  train_seconds: float = 0.0


def embed(
  experiment: experiment_lib.Experiment,
  variables: Mapping[str, Any],
  part: str,
  *,
  step: int,
) -> np.ndarray:
  """Embeds the images of "labelled", "validation" or "test".

  Args:
    experiment: its data and embedder.
    variables: {"params", "batch_stats"} of the encoder.
    part: the name of the images.
    step: steps that the encoder has been trained for, for messages.

  Returns:
    [n, D] float32; n is 0 where the data set has no such part.

  Raises:
    errors.NonFiniteError: when the embeddings are not finite.
  """
  images = getattr(experiment.dataset, part)
  if images is None or not len(images):
    return np.zeros((0, 1), np.float32)
  return embed_images(
    experiment, variables, images.images, name=part, step=step
  )


def embed_images(
  experiment: experiment_lib.Experiment,
  variables: Mapping[str, Any],
  images: Any,
  *,
  name: str,
  step: int,
  trunk: bool = False,
) -> np.ndarray:
  """Embeds images; see `embed`.

  Args:
    experiment: its embedder.
    variables: {"params", "batch_stats"} of the encoder.
    images: uint8 [n, H, W, Ch], or what reads them on demand.
    name: of the images, for messages.
    step: steps that the encoder has been trained for, for messages.
    trunk: whether to return the trunk's features [n, d] instead.
  """
  embed = experiment.embed_trunk if trunk else experiment.embed
  rows = embed(variables["params"], variables["batch_stats"], images)
  if hasattr(images, "share_unreadable"):
    # Each process has read its own images only.
    images.share_unreadable(agree.gather)
  bad = int((~np.isfinite(rows)).any(axis=-1).sum())
  if bad:
    raise errors.NonFiniteError(
      f"the embeddings of {bad} of {len(rows)} {name} images are not finite "
      f"at step {step}: lower optim.peak_lr or lengthen "
      "optim.warmup_epochs."
    )
  return rows


def soft_nn(
  experiment: experiment_lib.Experiment,
  part: str,
  queries: np.ndarray,
  supports: np.ndarray,
) -> dict[str, float]:
  """Computes the soft-NN accuracy on a part of the data.

  Args:
    experiment: the labels and the temperature.
    part: "validation", "test", or "labelled": leave-one-out.
    queries: [n, D] embeddings of the part's images.
    supports: [N, D] embeddings of the labelled images.

  Returns:
    {"top1", "top5"}, fractions.
  """
  dataset = experiment.dataset
  labels = getattr(dataset, part).labels
  readable = dataset.labelled.readable
  groups = None
  if part == "labelled":
    queries, labels = queries[readable], labels[readable]
    groups = copies.among(dataset.labelled.copies, readable)
  return soft_nn_lib.soft_nn_accuracy(
    queries,
    labels,
    supports[readable],
    dataset.labelled.labels[readable],
    num_classes=dataset.num_classes,
    temperature=experiment.temperature,
    leave_one_out=part == "labelled",
    copies=groups,
  )


def class_head(
  experiment: experiment_lib.Experiment, state: Any
) -> Mapping[str, Any] | None:
  """Returns the linear layer that a method trains on the trunk, if it does."""
  method = experiment.trainer.method
  return method.head(state) if method.config.class_head else None


def measure(
  experiment: experiment_lib.Experiment,
  recipe: config_lib.Recipe,
  embeddings: Mapping[str, np.ndarray],
  state: Any,
) -> dict[str, Any]:
  """Makes the result row of a run, without the times.

  Args:
    experiment: data, split and temperature.
    recipe: its recipe.
    embeddings: of "labelled" and other parts of the data by the final encoder.
    state: the final one; where it has a `class_head` accuracies are its own,
      and those of the vote of labelled images stand beside them.

  Returns:
    JSON-serializable: run, data and accuracies as fractions; None where a data
    set has no such images.
  """
  dataset, head = experiment.dataset, class_head(experiment, state)
  supports = embeddings["labelled"]
  run = result_rows.describe_run(recipe, dataset) | {
    "num_labels": int(dataset.labelled.readable.sum()),
    "steps": experiment.total_steps,
  }
  measured: dict[str, Any] = {}
  for part, prefix in (("test", ""), ("validation", "validation_")):
    if part == "validation" and dataset.validation is None:
      continue
    measured |= _accuracy(
      experiment, part, prefix, embeddings[part], supports, head
    )
  measured["leave_one_out_top1"] = _leave_one_out(experiment, supports)
  measured |= _raw_pixels(experiment, recipe.seed)
  protocol = "soft_nn" if head is None else "class_head"
  return result_rows.create(TASK, protocol, run, measured)


def _accuracy(
  experiment: experiment_lib.Experiment,
  part: str,
  prefix: str,
  queries: np.ndarray,
  supports: np.ndarray,
  head: Mapping[str, Any] | None,
) -> dict[str, Any]:
  """Returns accuracies with intervals, and the number of images."""
  count = len(queries)
  accuracy: Mapping[str, float | None] = dict.fromkeys(("top1", "top5"))
  if count and len(supports):
    accuracy = soft_nn(experiment, part, queries, supports)
  if count and head is not None:
    votes = {f"{prefix}soft_nn_{k}": value for k, value in accuracy.items()}
    labels = getattr(experiment.dataset, part).labels
    accuracy = class_head_lib.accuracies(head, queries, labels)
  else:
    votes = {}
  return {
    f"num_{part}": count,
    **result_rows.with_intervals(accuracy, count, prefix=prefix),
    **votes,
  }


def _raw_pixels(
  experiment: experiment_lib.Experiment, seed: int
) -> dict[str, Any]:
  """Computes what the pixels alone achieve, on the images of the result."""
  dataset = experiment.dataset
  part = dataset.monitored_part if dataset.test is None else "test"
  is_possible = part != "labelled" or can_leave_one_out(experiment)
  if not dataset.labelled or not is_possible:
    return {"raw_pixel_top1": None, "raw_pixel_top5": None}

  def compute() -> dict[str, Any]:
    soft_nn, nearest, logistic = pixel_baselines.outcomes(
      dataset, part, temperature=experiment.temperature, seed=seed
    )
    return {
      "raw_pixel_part": part,
      "num_raw_pixel": len(soft_nn.labels),
      "raw_pixel_top1": soft_nn.top(1),
      "raw_pixel_top5": soft_nn.top(5),
      "raw_pixel_1nn_top1": nearest.top(1),
      "raw_pixel_logistic_top1": logistic.top(1),
      "raw_pixel_logistic_top5": logistic.top(5),
    }

  # One process reads the files; the others get the numbers.
  return agree.gather(agree.on_main(compute))[0]


def can_leave_one_out(experiment: experiment_lib.Experiment) -> bool:
  """Whether any class has two different readable labelled images."""
  labelled = experiment.dataset.labelled
  labels = labelled.labels[labelled.readable]
  _, counts = np.unique(labels, return_counts=True)
  if counts.max(initial=0) < 2:
    return False
  groups = copies.among(labelled.copies, labelled.readable)
  different, _ = np.unique(np.stack([labels, groups]), axis=1)
  return bool(np.unique(different, return_counts=True)[1].max() > 1)


def _leave_one_out(
  experiment: experiment_lib.Experiment, supports: np.ndarray
) -> float | None:
  """Computes the leave-one-out accuracy of the labelled images.

  Returns:
    A fraction; None when no class has two labelled images.
  """
  if not can_leave_one_out(experiment):
    return None
  return soft_nn(experiment, "labelled", supports, supports)["top1"]


def draw(
  path: epath.Path,
  experiment: experiment_lib.Experiment,
  embeddings: Mapping[str, np.ndarray],
  rows: list[dict[str, Any]],
  reference: reference_curves.Reference | None = None,
) -> None:
  """Draws the figure of a run into `path`; `rows` are its metrics."""
  dataset = experiment.dataset
  test = dataset.test
  readable = dataset.labelled.readable
  training_figure.training_figure(
    path,
    rows,
    queries=embeddings["test"],
    query_labels=np.zeros(0, np.int32) if test is None else test.labels,
    supports=embeddings["labelled"][readable],
    support_labels=dataset.labelled.labels[readable],
    class_names=dataset.class_names,
    losses=experiment.trainer.method.shown_losses,
    reference=reference,
  )
