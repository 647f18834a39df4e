"""A map of embeddings: which images lie near which labelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# More than these make a projection no clearer, only slower.
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
  """Draws t-SNE of test embeddings (dots) and labelled ones (ringed).

  Args:
    axes: of matplotlib.
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
  if len(queries):
    kept = evenly_spaced(len(queries), _MOST_POINTS - split)
    query_labels = query_labels[kept]
    points = np.concatenate([supports, queries[kept]])
  projection = project(points)
  colours = colormaps["tab10" if len(class_names) <= 10 else "gist_rainbow"]
  scale = 1 if len(class_names) <= 10 else 1 / len(class_names)
  labelled, test = projection[:split], projection[split:]
  for k, name in enumerate(class_names):
    colour = [colours(k * scale) if scale < 1 else colours(k)]
    mine = query_labels == k
    axes.scatter(
      *test[mine].T, s=10, c=colour, alpha=0.7, label=escape_label(name)
    )
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


def evenly_spaced(num: int, most: int) -> np.ndarray:
  """At most `most` of the rows 0..num-1, evenly spaced: the same every time."""
  return np.linspace(0, num - 1, min(most, num)).astype(int)


def project(points: np.ndarray) -> np.ndarray:
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


def escape_label(name: str) -> str:
  """A label that matplotlib takes for text, and does not leave out."""
  # File names need not be UTF-8.
  name = name.encode("utf-8", "backslashreplace").decode()
  name = name.replace("$", r"\$")
  return f" {name}" if name.startswith("_") else name
