"""What a run ends with: its result row, the table and the figure."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from paws_jax import evaluate
from paws_jax import experiment as experiment_lib
from paws_jax import figures
from paws_jax import metrics
from paws_jax import train
from paws_jax import workdir as workdir_lib


@dataclasses.dataclass(frozen=True)
class Spent:
  """Seconds spent on a run so far, by all its processes one after another."""

  wall_seconds: float = 0.0
  compile_seconds: float = 0.0
  # Steps only: no compilation, evaluation or saving.
  train_seconds: float = 0.0


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """Test images [n, D] and labelled images [N, D] as the encoder sees them."""

  queries: np.ndarray
  supports: np.ndarray


def embed(
  experiment: experiment_lib.Experiment, state: train.TrainState
) -> Embeddings:
  """Embeds test and labelled images.

  Raises:
    train.NonFiniteError: when the embeddings are not finite.
  """
  dataset = experiment.dataset
  images = (dataset.test.images, dataset.labelled.images)
  both = [
    experiment.embed(state.params, state.model_state, part) for part in images
  ]
  bad = sum(int((~np.isfinite(rows)).any(axis=-1).sum()) for rows in both)
  if bad:
    raise train.NonFiniteError(
      f"the embeddings of {bad} of {sum(map(len, both))} images are not finite "
      f"at step {int(state.step)}: lower optim.peak_lr or lengthen "
      "optim.warmup_epochs."
    )
  return Embeddings(*both)


def soft_nn(
  experiment: experiment_lib.Experiment, embeddings: Embeddings
) -> dict[str, float]:
  """Accuracy on the test images, {"top1", "top5"}, fractions."""
  return evaluate.soft_nn_accuracy(
    embeddings.queries,
    experiment.dataset.test.labels,
    embeddings.supports,
    experiment.dataset.labelled.labels,
    num_classes=experiment.dataset.num_classes,
    temperature=experiment.temperature,
  )


def measure(
  experiment: experiment_lib.Experiment,
  config: ml_collections.ConfigDict,
  embeddings: Embeddings,
) -> dict[str, Any]:
  """The result row of a run, but for the time it took.

  Args:
    experiment: data, split and temperature.
    config: its recipe.
    embeddings: by the final encoder.

  Returns:
    JSON-serialisable: what was measured on what, and accuracies as fractions.
  """
  dataset = experiment.dataset
  accuracy = soft_nn(experiment, embeddings)
  pixels = Embeddings(
    _pixels(dataset.test.images), _pixels(dataset.labelled.images)
  )
  raw = soft_nn(experiment, pixels)
  count = len(dataset.test)
  return {
    "protocol": "soft_nn",
    "method": config.method.name,
    "dataset": dataset.name,
    "split_seed": dataset.split.split_seed,
    "split_hash": dataset.split.hash,
    "seed": config.seed,
    "num_labels": len(dataset.split.labelled_ids),
    "num_test": count,
    "steps": experiment.total_steps,
    **accuracy,
    "top1_interval": evaluate.confidence_interval(accuracy["top1"], count),
    "top5_interval": evaluate.confidence_interval(accuracy["top5"], count),
    "raw_pixel_top1": raw["top1"],
    "raw_pixel_top5": raw["top5"],
    "leave_one_out_top1": _leave_one_out(experiment, embeddings.supports),
    "version": workdir_lib.version(),
  }


def _leave_one_out(
  experiment: experiment_lib.Experiment, supports: np.ndarray
) -> float | None:
  """Accuracy over the labelled images, each judged by the others.

  None when no class has two.
  """
  dataset = experiment.dataset
  if max(dataset.split.class_counts) < 2:
    return None
  labels = dataset.labelled.labels
  return evaluate.soft_nn_accuracy(
    supports,
    labels,
    supports,
    labels,
    num_classes=dataset.num_classes,
    temperature=experiment.temperature,
    leave_one_out=True,
  )["top1"]


def _pixels(images: np.ndarray) -> np.ndarray:
  return images.reshape(len(images), -1).astype(np.float32) / 255


def draw(
  path: pathlib.Path,
  experiment: experiment_lib.Experiment,
  embeddings: Embeddings,
  rows: list[dict[str, Any]],
) -> None:
  """Draws the figure of a run into `path`; `rows` are its metrics."""
  dataset = experiment.dataset
  figures.training_figure(
    path,
    rows,
    queries=embeddings.queries,
    query_labels=dataset.test.labels,
    supports=embeddings.supports,
    support_labels=dataset.labelled.labels,
    class_names=dataset.class_names,
  )


def table(row: Mapping[str, Any]) -> str:
  """The table a user came for, out of a result row."""
  labels, count = row["num_labels"], row["num_test"]
  name = "PAWS-NN" if row["method"] == "paws" else f"{row['method']}, soft NN"
  lines = [
    f"{row['dataset']}: {labels} labels, {count} test images, 95 % intervals",
    f"{'':26}{'top-1':24}top-5",
    _line(name, (row["top1"], row["top5"]), count),
    _line(
      "soft NN on raw pixels",
      (row["raw_pixel_top1"], row["raw_pixel_top5"]),
      count,
    ),
  ]
  if row["leave_one_out_top1"] is not None:
    lines.append(
      _line("leave-one-out, labelled", (row["leave_one_out_top1"],), labels)
    )
  lines += [
    "",
    f"{row['wall_seconds']:.0f} s in all, {row['compile_seconds']:.0f} s of "
    f"them compiling; {row['steps_per_second']:.2f} steps/s",
  ]
  return "\n".join(lines)


def _line(title: str, accuracies: tuple[float, ...], count: int) -> str:
  cells = []
  for accuracy in accuracies:
    low, high = evaluate.confidence_interval(accuracy, count)
    cells.append(f"{accuracy:6.1%} [{low:.1%}, {high:.1%}]".ljust(24))
  return f"{title:26}{''.join(cells)}".rstrip()


def footer(workdir: pathlib.Path, next_command: str) -> str:
  """Where everything lies, and what to try next."""
  lines = [
    f"checkpoint  {workdir / workdir_lib.CHECKPOINTS}",
    f"metrics     {workdir / metrics.METRICS}",
    f"results     {workdir / metrics.RESULTS}",
    f"figure      {workdir / figures.TRAINING}",
  ]
  if next_command:
    lines += ["", f"next, try   {next_command}"]
  return "\n".join(lines)
