"""Figures of a run, as PNG files."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

TRAINING = "training.png"

# More than these make a projection no clearer, only slower.
_MOST_POINTS = 2000
_MOST_SUPPORTS = 1000


def training_figure(
  path: pathlib.Path,
  rows: Sequence[Mapping[str, Any]],
  *,
  queries: np.ndarray,
  query_labels: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  class_names: Sequence[str],
) -> None:
  """Draws loss curves, accuracy and a map of the embeddings.

  Args:
    path: the PNG to write.
    rows: lines of metrics.jsonl.
    queries: [n, D] embeddings of test images; n may be 0.
    query_labels: [n] classes.
    supports: [N, D] embeddings of labelled images.
    support_labels: [N] classes.
    class_names: names by class.
  """
  # Imported here: a training run needs it only at its end.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(13, 5.2), layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  grid = figure.add_gridspec(2, 2, width_ratios=(1, 1.15))
  losses = figure.add_subplot(grid[0, 0])
  _draw_losses(losses, rows)
  _draw_accuracy(figure.add_subplot(grid[1, 0], sharex=losses), rows)
  _draw_map(
    figure.add_subplot(grid[:, 1]),
    queries,
    query_labels,
    supports,
    support_labels,
    class_names,
  )
  figure.savefig(path, dpi=110)


def _series(
  rows: Sequence[Mapping[str, Any]], name: str
) -> tuple[list[int], list[float]]:
  points = [(row["step"], row[name]) for row in rows if name in row]
  return [step for step, _ in points], [value for _, value in points]


def _draw_losses(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  for name, label in (
    ("cross_entropy", "cross-entropy"),
    ("me_max_kl", "me-max: KL(mean ‖ uniform)"),
  ):
    steps, values = _series(rows, name)
    if steps:
      axes.plot(steps, values, label=label)
  axes.set_ylabel("nats")
  axes.set_ylim(bottom=0)
  _finish(axes, "Losses")


def _draw_accuracy(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  for name, label, style in (
    ("soft_nn_top1", "soft-NN top-1", "o-"),
    ("target_confidence", "target confidence", "-"),
  ):
    steps, values = _series(rows, name)
    if steps:
      axes.plot(steps, values, style, label=label, markersize=4)
  axes.set_ylim(0, 1.02)
  axes.set_xlabel("step")
  _finish(axes, "Accuracy")


def _finish(axes: Any, title: str) -> None:
  """Title and legend side by side above the axes, where no curve runs."""
  axes.set_title(title, loc="left")
  axes.grid(alpha=0.3)
  # matplotlib warns of a legend of nothing.
  if axes.get_lines():
    axes.legend(
      frameon=False,
      loc="lower right",
      bbox_to_anchor=(1, 1),
      borderaxespad=0.1,
      ncols=2,
    )


def _draw_map(
  axes: Any,
  queries: np.ndarray,
  query_labels: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  class_names: Sequence[str],
) -> None:
  """t-SNE of test embeddings (dots) and labelled ones (ringed)."""
  from matplotlib import colormaps

  total = len(supports)
  shown = _evenly(total, _MOST_SUPPORTS)
  supports, support_labels = supports[shown], support_labels[shown]
  points, split = supports, len(supports)
  if len(queries):
    kept = _evenly(len(queries), _MOST_POINTS - split)
    query_labels = query_labels[kept]
    points = np.concatenate([supports, queries[kept]])
  projection = _project(points)
  colours = colormaps["tab10" if len(class_names) <= 10 else "gist_rainbow"]
  scale = 1 if len(class_names) <= 10 else 1 / len(class_names)
  labelled, test = projection[:split], projection[split:]
  for k, name in enumerate(class_names):
    colour = [colours(k * scale) if scale < 1 else colours(k)]
    mine = query_labels == k
    axes.scatter(*test[mine].T, s=10, c=colour, alpha=0.7, label=_plain(name))
    axes.scatter(
      *labelled[support_labels == k].T,
      s=70,
      c=colour,
      edgecolors="black",
      linewidths=1.4,
    )
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_title(
    f"Embeddings (t-SNE): {len(test)} test images, {split} "
    + (f"of {total} " if split < total else "")
    + "labelled (ringed)"
  )
  if len(class_names) <= 20:
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _evenly(num: int, most: int) -> np.ndarray:
  """At most `most` of the rows 0..num-1, evenly spaced: the same every time."""
  return np.linspace(0, num - 1, min(most, num)).astype(int)


def _project(points: np.ndarray) -> np.ndarray:
  """[n, D] to [n, 2]: t-SNE by direction; where there is nothing to see, 0."""
  import threadpoolctl
  from sklearn import manifold

  points = points.astype(np.float64)
  points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
  # t-SNE starts from the principal components, scaled to a spread of 1e-4.
  centred = points - points.mean(axis=0)
  left, scale, _ = np.linalg.svd(centred, full_matrices=False)
  start = np.zeros((len(points), 2))
  start[:, : min(2, len(scale))] = (left * scale)[:, :2]
  spread = start[:, 0].std()
  if spread < 1e-9 or len(points) < 4:
    return start
  # One thread: sums come out the same, and OpenMP's threads, which wait
  # spinning, take minutes for a second's work on a machine that is shared.
  with threadpoolctl.threadpool_limits(1):
    return manifold.TSNE(
      perplexity=min(30, (len(points) - 1) / 3),
      init=start / spread * 1e-4,
      random_state=0,
    ).fit_transform(points)


def _plain(name: str) -> str:
  """A label that matplotlib takes for text, and does not leave out."""
  name = name.replace("$", r"\$")
  return f" {name}" if name.startswith("_") else name
