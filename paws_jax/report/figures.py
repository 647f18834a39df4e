"""Figures and thumbnails of a report, as data URIs: nothing is loaded."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax.monitoring import monitor
from paws_jax.plots import curves as curves_lib
from paws_jax.plots import embedding_map as embedding_map_lib

# Narrow enough for a phone, where the page shows figures one below the other.
_WIDTH = 5.0
# Points of the map: more make it no clearer, only slower.
MOST_POINTS, _MOST_LABELLED = 2000, 700
# Classes with a color of their own.
_MOST_COLORS = 20
# Numbers stand in the cells up to so many classes, names beside them up to ...
_MOST_NUMBERS, _MOST_NAMES = 12, 40
_LONGEST_NAME = 16
_OTHERS = "#9a9a9a"

# Longest side of a thumbnail; up to the second an image stays as it is.
_SIDE, _TINY = 112, 48


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image on the page.

  Attributes:
    uri: "data:...".
    tiny: whether its pixels are to be shown as squares.
  """

  uri: str
  tiny: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Points:
  """Embeddings of one kind, for the map.

  Attributes:
    label: what they are, for the legend.
    embeddings: float32 [n, D].
    classes: int [n], which color them; -1: grey.
    chosen: int [m], rows to be marked with a cross.
  """

  label: str
  embeddings: np.ndarray
  classes: np.ndarray
  chosen: np.ndarray = dataclasses.field(
    default_factory=lambda: np.zeros(0, int)
  )


def thumbnail(pixels: np.ndarray) -> Picture:
  """Of uint8 [H, W, 1 or 3]: PNG for tiny images, else JPEG."""
  from PIL import Image

  grey = pixels.shape[2] == 1
  image = Image.fromarray(
    np.ascontiguousarray(pixels[..., 0] if grey else pixels)
  )
  tiny = max(image.size) <= _TINY
  file = io.BytesIO()
  if tiny:
    image.save(file, "PNG", optimize=True)
    return Picture(_uri("image/png", file.getvalue()), tiny=True)
  image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
  image.save(file, "JPEG", quality=82, optimize=True)
  return Picture(_uri("image/jpeg", file.getvalue()))


def curves(
  rows: Sequence[Mapping[str, Any]], *, losses: Sequence[str]
) -> Picture | None:
  """What was recorded over the steps; None when nothing was.

  Args:
    rows: lines of metrics.jsonl.
    losses: metrics that tell what is minimized: `shown_losses` of the method.
  """
  # What was found out about the run stands on the page as text.
  rows = [row for row in rows if monitor.KEY not in row]
  if not any("loss" in row for row in rows):
    return None
  figure = _new_figure(8.4)
  cells = figure.add_gridspec(4, 1)
  # Four panels below each other, where the figure of a run has two by two.
  places = ((0, 0), (1, 0), (0, 1), (1, 1))
  grid = {place: cells[i, 0] for i, place in enumerate(places)}
  curves_lib.draw(figure, grid, rows, losses=losses)
  return _svg(figure)


def confusion(
  counts: np.ndarray, class_names: Sequence[str], *, others: bool = False
) -> Picture:
  """A confusion matrix; colors are fractions of a row.

  Args:
    counts: int [K, K], rows are true classes.
    class_names: K of them.
    others: whether the last row and column stand for all other classes.
  """
  num_classes = len(counts)
  figure = _new_figure(_WIDTH)
  axes = figure.subplots()
  rows = np.maximum(counts.sum(axis=1, keepdims=True), 1)
  axes.imshow(counts / rows, cmap="Blues", vmin=0, vmax=1)
  axes.set_xlabel("predicted")
  axes.set_ylabel("true")
  axes.xaxis.set_label_position("top")
  axes.xaxis.tick_top()
  if num_classes <= _MOST_NAMES:
    names = [_short(name) for name in class_names]
    size = 9 if num_classes <= 20 else 6
    axes.set_xticks(range(num_classes), names, rotation=90, fontsize=size)
    axes.set_yticks(range(num_classes), names, fontsize=size)
    if max(map(len, names)) <= 2:
      axes.tick_params(axis="x", rotation=0)
  else:
    axes.set_xticks([])
    axes.set_yticks([])
  if others:
    axes.axhline(num_classes - 1.5, color=_OTHERS, linewidth=0.8)
    axes.axvline(num_classes - 1.5, color=_OTHERS, linewidth=0.8)
  if num_classes <= _MOST_NUMBERS:
    for (i, j), count in np.ndenumerate(counts):
      if count:
        dark = count / rows[i, 0] > 0.5
        axes.text(
          j,
          i,
          f"{count}",
          ha="center",
          va="center",
          fontsize=8,
          color="white" if dark else "black",
        )
  return _svg(figure)


def embedding_map(
  labelled: Points, others: Points, class_names: Sequence[str]
) -> Picture:
  """t-SNE of embeddings: dots, and the labelled ones ringed.

  Of more than `MOST_POINTS` points some are left out, evenly, but none that is
  marked.

  Args:
    labelled: the support bank.
    others: the images it judges; may be none.
    class_names: names by class.
  """
  first = embedding_map_lib.evenly_spaced(len(labelled.classes), _MOST_LABELLED)
  second = _with_chosen(others, MOST_POINTS - len(first))
  places = embedding_map_lib.project(
    np.concatenate([labelled.embeddings[first], others.embeddings[second]])
  )
  figure = _new_figure(_WIDTH)
  axes = figure.subplots()
  # Thousands of vectors would make the page slow: dots are pixels.
  axes.set_rasterization_zorder(0)
  colors = _colors(labelled.classes[first], others.classes[second])
  where, ringed = places[len(first) :], places[: len(first)]
  dots = [colors.get(k, _OTHERS) for k in others.classes[second]]
  rings = [colors.get(k, _OTHERS) for k in labelled.classes[first]]
  if len(second):
    axes.scatter(*where.T, s=7, c=dots, alpha=0.7, linewidths=0, zorder=-2)
  axes.scatter(
    *ringed.T, s=42, c=rings, edgecolors="black", linewidths=1.1, zorder=-1
  )
  marked = np.isin(second, others.chosen)
  axes.scatter(*where[marked].T, s=34, c="black", marker="x", linewidths=1.2)
  axes.set_xticks([])
  axes.set_yticks([])
  _legend(figure, labelled, others, colors, class_names)
  return _svg(figure)


def _with_chosen(points: Points, most: int) -> np.ndarray:
  """Rows to draw, sorted: the marked ones and some of the others."""
  rest = np.setdiff1d(np.arange(len(points.classes)), points.chosen)
  room = max(most - len(points.chosen), 0)
  some = (
    rest[embedding_map_lib.evenly_spaced(len(rest), room)] if room else rest[:0]
  )
  return np.sort(np.concatenate([points.chosen, some])).astype(int)


def _colors(*classes: np.ndarray) -> dict[int, Any]:
  """A color for each class, or for the most frequent ones."""
  from matplotlib import colormaps

  present, counts = np.unique(np.concatenate(classes), return_counts=True)
  present, counts = present[present >= 0], counts[present >= 0]
  if len(present) > _MOST_COLORS:
    frequent = np.argsort(-counts, kind="stable")[:_MOST_COLORS]
    present = np.sort(present[frequent])
  colors = colormaps["tab10" if len(present) <= 10 else "tab20"]
  return {int(k): colors(i) for i, k in enumerate(present)}


def _legend(
  figure: Any,
  labelled: Points,
  others: Points,
  colors: Mapping[int, Any],
  class_names: Sequence[str],
) -> None:
  """Below the map: classes, then kinds of points."""
  from matplotlib import lines

  def mark(label: str, **style: Any) -> lines.Line2D:
    return lines.Line2D([], [], linestyle="", label=label, **style)

  marks = [
    mark(_short(class_names[k]), marker="o", color=color, markersize=6)
    for k, color in colors.items()
  ]
  if len(np.unique(labelled.classes)) > len(colors):
    marks.append(mark("other classes", marker="o", color=_OTHERS))
  ring = {"marker": "o", "markerfacecolor": "none", "markersize": 7}
  marks.append(mark(labelled.label, markeredgecolor="black", **ring))
  if len(others.classes):
    marks.append(mark(others.label, marker="o", color=_OTHERS, markersize=3))
  if len(others.chosen):
    marks.append(mark("to label next", marker="x", color="black", markersize=6))
  figure.legend(
    handles=marks,
    loc="outside lower center",
    ncols=3 if max(len(str(m.get_label())) for m in marks) > 8 else 4,
    frameon=False,
    fontsize=9,
    handletextpad=0.2,
  )


def _short(name: str) -> str:
  name = name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"
  return embedding_map_lib.escape_label(name)


def _new_figure(height: float) -> Any:
  from matplotlib.backends import backend_svg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(_WIDTH, height), layout="constrained")
  backend_svg.FigureCanvasSVG(figure)
  return figure


def _svg(figure: Any) -> Picture:
  """Without a background: the page has one."""
  import matplotlib

  file = io.BytesIO()
  # Names of its parts, the same every time.
  with matplotlib.rc_context({"svg.hashsalt": "paws_jax"}):
    figure.savefig(
      file,
      format="svg",
      dpi=200,
      transparent=True,
      metadata={"Date": None, "Creator": None},
    )
  return Picture(_uri("image/svg+xml", file.getvalue()))


def _uri(kind: str, content: bytes) -> str:
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"
