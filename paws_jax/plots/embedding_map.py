"""A map of the embeddings of test images and labelled images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# More points make a projection slower, not clearer.
_MOST_POINTS = 2000
_MOST_SUPPORTS = 1000


def draw(
  axes: Any,
  queries: np.ndarray,
  query_labels: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  class_names: Sequence[str],
) -> None:
  """Draws a t-SNE of test embeddings (dots) and labelled ones (ringed).

  Args:
    axes: axes of matplotlib.
    queries: [n, D] embeddings of test images; n may be 0.
    query_labels: [n] classes.
    supports: [N, D] embeddings of labelled images.
    support_labels: [N] classes.
    class_names: names by class.
  """
  from matplotlib import colormaps

  total = len(supports)
  shown = evenly_spaced(total, _MOST_SUPPORTS)
  supports, support_labels = supports[shown], support_labels[shown]
  points, split = supports, len(supports)
  if len(queries) and not total:
    # Without a column of its own, an empty array does not fit.
    supports = np.zeros((0, queries.shape[1]), queries.dtype)
  if len(queries):
    kept = evenly_spaced(len(queries), _MOST_POINTS - split)
    query_labels = query_labels[kept]
    points = np.concatenate([supports, queries[kept]])
  projection = project(points) if len(points) else np.zeros((0, 2))
  colors = colormaps["tab10" if len(class_names) <= 10 else "gist_rainbow"]
  scale = 1 if len(class_names) <= 10 else 1 / len(class_names)
  labelled, test = projection[:split], projection[split:]
  for k, name in enumerate(class_names):
    color = [colors(k * scale) if scale < 1 else colors(k)]
    mine = query_labels == k
    axes.scatter(
      *test[mine].T, s=10, c=color, alpha=0.7, label=escape_label(name)
    )
    axes.scatter(
      *labelled[support_labels == k].T,
      s=70,
      c=color,
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
  if 0 < len(class_names) <= 20:
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)


def evenly_spaced(num: int, most: int) -> np.ndarray:
  """Returns at most `most` of the rows 0..num-1, evenly spaced."""
  return np.linspace(0, num - 1, min(most, num)).astype(int)


def project(points: np.ndarray) -> np.ndarray:
  """Projects directions [n, D] to [n, 2] by t-SNE, or equal ones to 0."""
  import threadpoolctl
  from sklearn import manifold

  points = points.astype(np.float64)
  points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
  # t-SNE starts from the principal components, scaled to a spread of 1e-4.
  centered = points - points.mean(axis=0)
  left, scale, _ = np.linalg.svd(centered, full_matrices=False)
  start = np.zeros((len(points), 2))
  start[:, : min(2, len(scale))] = (left * scale)[:, :2]
  spread = start[:, 0].std()
  if spread < 1e-9 or len(points) < 4:
    return start
  # One thread: sums are reproducible, and OpenMP's threads, which wait in busy
  # loops, take minutes for a second of work on a shared machine.
  with threadpoolctl.threadpool_limits(1):
    return manifold.TSNE(
      perplexity=min(30, (len(points) - 1) / 3),
      init=start / spread * 1e-4,
      random_state=0,
    ).fit_transform(points)


def escape_label(name: str) -> str:
  """Returns a label that matplotlib shows as it is."""
  # File names need not be UTF-8.
  name = name.encode("utf-8", "backslashreplace").decode()
  name = name.replace("$", r"\$")
  return f" {name}" if name.startswith("_") else name
