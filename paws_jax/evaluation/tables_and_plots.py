"""What an evaluation leaves in WORKDIR/evaluation: tables and figures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paws_jax import text
from paws_jax.evaluation import accuracy as accuracy_lib
from paws_jax.evaluation import calibration
from paws_jax.evaluation import protocols
from paws_jax.evaluation import result_rows
from paws_jax.runs import files
from paws_jax.runs import results

DIRECTORY = "evaluation"
CONFUSION_TABLE = "confusion.csv"
PER_CLASS_TABLE = "per_class.csv"
CONFUSION = "confusion.png"
RELIABILITY = "reliability.png"
# That the directory can be written is checked with one file of it.
CHECKED = f"{DIRECTORY}/{PER_CLASS_TABLE}"

# More classes than these have no room for their names, or for numbers.
_MOST_NAMED, _MOST_COUNTED = 60, 20
_LONGEST_NAME = 24


def places(workdir: epath.Path, subdirectory: str = "") -> list[str]:
  """Lines that say where everything lies; arguments as of `write`."""
  directory = workdir / DIRECTORY / subdirectory
  return [
    f"results     {workdir / results.RESULTS}",
    f"classes     {directory / PER_CLASS_TABLE}",
    f"confusion   {directory / CONFUSION_TABLE}, {CONFUSION}",
    f"calibration {directory / RELIABILITY}",
  ]


def write(
  workdir: epath.Path,
  outcomes: Sequence[protocols.Outcome],
  *,
  class_names: Sequence[str],
  source: str,
  subdirectory: str = "",
) -> None:
  """Writes tables and figures, over those of an earlier evaluation.

  Args:
    workdir: an existing directory.
    outcomes: the confusion matrix is that of the first.
    class_names: by class.
    source: data set and step, for the figures' titles.
    subdirectory: in the directory of evaluations, for images of their own.
  """
  directory = workdir / DIRECTORY / subdirectory
  directory.mkdir(parents=True, exist_ok=True)
  names = [text.escape(name) for name in class_names]
  files.replace_output(
    directory / CONFUSION_TABLE, _confusion_table(outcomes[0], names)
  )
  files.replace_output(
    directory / PER_CLASS_TABLE, _per_class_table(outcomes, names)
  )
  draw_confusion(directory / CONFUSION, outcomes[0], names, source=source)
  draw_reliability(directory / RELIABILITY, outcomes, source=source)


def _table(rows: Sequence[Sequence[Any]]) -> str:
  file = io.StringIO()
  csv.writer(file, lineterminator="\n").writerows(rows)
  return file.getvalue()


def _confusion_table(outcome: protocols.Outcome, names: Sequence[str]) -> str:
  """Counts: a row for each true class, a column for each predicted one."""
  rows = [["true class", *names]]
  for name, counts in zip(names, outcome.confusion.tolist(), strict=True):
    rows.append([name, *counts])
  return _table(rows)


def _per_class_table(
  outcomes: Sequence[protocols.Outcome], names: Sequence[str]
) -> str:
  rows = [["protocol", "part", "class", "images", "top1", "low", "high"]]
  for outcome in outcomes:
    counts = outcome.confusion.sum(axis=1).tolist()
    for name, count, top1 in zip(
      names, counts, result_rows.per_class(outcome), strict=True
    ):
      cells = ["", "", ""]
      if top1 is not None:
        interval = accuracy_lib.confidence_interval(top1, count)
        cells = [f"{value:.4f}" for value in (top1, *interval)]
      rows.append([outcome.title, outcome.part, name, count, *cells])
  return _table(rows)


def _figure(width: float, height: float) -> Any:
  # Imported here: the maths need no figures.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  return figure


def _save(figure: Any, path: epath.Path) -> None:
  file = io.BytesIO()
  figure.savefig(file, dpi=110)
  files.replace_output(path, file.getvalue())


def draw_confusion(
  path: epath.Path,
  outcome: protocols.Outcome,
  class_names: Sequence[str],
  *,
  source: str,
) -> None:
  """Draws a confusion matrix, each row as fractions of the true class.

  Args:
    path: the PNG to write.
    outcome: of a protocol.
    class_names: by class.
    source: for the title.
  """
  counts = outcome.confusion
  total = len(counts)
  fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
  named, counted = total <= _MOST_NAMED, total <= _MOST_COUNTED
  side = float(np.clip(3 + 0.32 * total, 5, 13)) if named else 9.0
  figure = _figure(side + 1, side)
  axes = figure.add_subplot()
  image = axes.imshow(
    fractions, cmap="Blues", vmin=0, vmax=1, interpolation="nearest"
  )
  bar = figure.colorbar(image, ax=axes, shrink=0.8)
  bar.set_label("fraction of the true class")
  axes.set_xlabel("predicted class")
  axes.set_ylabel("true class")
  axes.set_title(
    f"{outcome.title}: {outcome.top(1):.1%} of {len(outcome.labels)} "
    f"{outcome.part} images\n{_text(source)}"
  )
  if named:
    names = [_short(name) for name in class_names]
    upright = sum(map(len, names)) <= 8 * side
    axes.set_xticks(range(total), names, rotation=0 if upright else 90)
    axes.set_yticks(range(total), names)
  if counted:
    for row, column in zip(*np.nonzero(counts), strict=True):
      dark = fractions[row, column] > 0.5
      axes.text(
        column,
        row,
        str(counts[row, column]),
        ha="center",
        va="center",
        fontsize=8,
        color="white" if dark else "black",
      )
  _save(figure, path)


def draw_reliability(
  path: epath.Path, outcomes: Sequence[protocols.Outcome], *, source: str
) -> None:
  """Draws, for all outcomes with probabilities, what these are worth.

  Above, the accuracy of the images of each bin of the predicted class's
  probability, with 95 % intervals; below, how many images a bin has.

  Args:
    path: the PNG to write.
    outcomes: at least one has probabilities.
    source: for the title.
  """
  shown = [(o.title, o.calibration) for o in outcomes if o.calibration]
  figure = _figure(3.4 * max(2, len(shown)), 4.6)
  grid = figure.add_gridspec(2, len(shown), height_ratios=(3, 1))
  for column, (title, found) in enumerate(shown):
    top = figure.add_subplot(grid[0, column])
    bottom = figure.add_subplot(grid[1, column], sharex=top)
    _draw_bins(top, found)
    top.set_title(f"{title}\nECE {found.error:.1%}", fontsize=10)
    width = np.diff(found.edges)
    bottom.bar(found.edges[:-1], found.counts, width, align="edge", ec="white")
    bottom.set_xlabel("probability of the predicted class")
    if column == 0:
      top.set_ylabel("accuracy")
      bottom.set_ylabel("images")
  figure.suptitle(
    f"{_text(source)}: calibration in {calibration.NUM_BINS} bins", fontsize=11
  )
  _save(figure, path)


def _draw_bins(axes: Any, found: calibration.Calibration) -> None:
  """The diagonal, and the bins that hold images."""
  axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
  there = found.counts > 0
  intervals = np.array(
    [
      accuracy_lib.confidence_interval(accuracy, count)
      for accuracy, count in zip(
        found.accuracy[there], found.counts[there].tolist(), strict=True
      )
    ]
  )
  accuracy = found.accuracy[there]
  # Rounding may leave the interval of 0 or 1 a hair off.
  below = np.maximum(accuracy - intervals[:, 0], 0)
  above = np.maximum(intervals[:, 1] - accuracy, 0)
  axes.errorbar(
    found.confidence[there],
    accuracy,
    yerr=(below, above),
    fmt="o",
    markersize=4,
    elinewidth=1,
    # Half of a point at 0 or 1 would be cut off.
    clip_on=False,
  )
  axes.set_xlim(0, 1)
  axes.set_ylim(0, 1)
  axes.grid(alpha=0.3)


def _short(name: str) -> str:
  """Names that are alike often differ at their ends."""
  if len(name) > _LONGEST_NAME:
    half = _LONGEST_NAME // 2
    name = f"{name[: half - 1]}…{name[-half:]}"
  return _text(name)


def _text(name: str) -> str:
  """What matplotlib takes for text, not for a formula."""
  return name.replace("$", r"\$")
