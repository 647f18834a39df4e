"""Tables of a comparison as text and markdown, and its figure."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import statistics
import textwrap
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

_Rows = Sequence[Mapping[str, Any]]
# Distinguished by those who see colors differently (Okabe and Ito, 2008), and
# by their marks.
_STYLES = (
  ("#0072B2", "o"),
  ("#E69F00", "s"),
  ("#009E73", "^"),
  ("#CC79A7", "D"),
  ("#000000", "v"),
)
# Fields of a cell and what they are called.
SCORES = {
  "knn": "1-NN",
  "linear": "linear probe",
  "soft_nn": "soft NN",
  "class_head": "class head",
  "fine_tuned": "fine-tuned",
  "auroc": "AUROC",
}


# How the tables are to be read.
NOTES = """\
All methods have the same split and trunk, and all without a class head the same
batch, optimizer and augmentation. Those with a recipe on digits of their own
(configs/NAME.py:cpu) have its heads and its settings of the method. Views are
crops that pass through the trained encoder, with a gradient; passes without one
count in TFLOP alone. So MoCo, BYOL and mean shift compute about a third more
for a view and Mean Teacher a fifth more, for an average network, and MPL the
loss of its labelled images twice. MoCo and mean shift train on one crop of an
image and take twice as many steps. 1-NN and the linear probe stand on the
features of the trunk, soft NN on the output of the heads; fine-tuning is of all
weights, at one learning rate for all, although methods differ in the best.
Methods with a class head have the views, the batch and the optimizer of their
own recipes, but labelled images drawn class by class; passes of both networks
of MPL count. Methods without labels are pre-trained once for each seed."""


@dataclasses.dataclass(frozen=True)
class Table:
  """A heading, the names of the columns, and lines of as many cells."""

  title: str
  header: tuple[str, ...]
  lines: tuple[tuple[str, ...], ...]


def tables(rows: _Rows, names: Mapping[str, str]) -> list[Table]:
  """Scores for each number of labels, and costs.

  Args:
    rows: finished cells.
    names: of methods, by their key; in the order that they are shown in.
  """
  columns = sorted({row["labels"] for row in rows})
  shown = [_scores(rows, names, labels) for labels in columns]
  return [*shown, _costs(rows, names)]


def summary(row: Mapping[str, Any]) -> str:
  """Returns the scores of a cell in a line."""
  return ", ".join(
    f"{SCORES[field]} {row[field]:.1%}" for field in _there([row])
  )


def _there(rows: _Rows) -> list[str]:
  """Returns the scores that some of the cells have."""
  return [field for field in SCORES if any(field in row for row in rows)]


def _scores(rows: _Rows, names: Mapping[str, str], labels: int) -> Table:
  """A line for each method, a column for each score."""
  fields = _there(rows)
  seeds = len({row["seed"] for row in rows})
  lines = []
  for method, name in names.items():
    mine = [
      row for row in rows if row["method"] == method and row["labels"] == labels
    ]
    if mine:
      cells = [
        _cell([100 * row[field] for row in mine if field in row], seeds)
        for field in fields
      ]
      lines.append((name, *cells))
  images = "image" if labels == 1 else "images"
  title = (
    f"{labels} labelled {images} of each class, % on test images; mean ± sd "
    f"over {seeds} label draws (fewer: in brackets)"
  )
  header = ("method", *(SCORES[field] for field in fields))
  return Table(title, header, tuple(lines))


def _cell(values: Sequence[float], wanted: int) -> str:
  """Mean ± sd, and the number of values where some are missing."""
  if not values:
    return "-"
  text = f"{statistics.mean(values):.1f}"
  if len(values) > 1:
    text += f" ± {statistics.stdev(values):.1f}"
  return text if len(values) == wanted else f"{text} ({len(values)})"


def _costs(rows: _Rows, names: Mapping[str, str]) -> Table:
  """Means over all cells of a method."""
  lines = []
  for method, name in names.items():
    mine = [row for row in rows if row["method"] == method]
    if mine:

      def mean(field: str, mine: _Rows = mine) -> float:
        return statistics.mean(row[field] for row in mine)

      lines.append(
        (
          name,
          f"{mean('steps'):,.0f}",
          f"{mean('images'):,.0f}",
          f"{mean('views'):,.0f}",
          f"{mean('flops') / 1e12:.2f}",
          f"{mean('seconds'):.0f}",
          f"{sum(row['compile_seconds'] for row in mine):.0f}",
        )
      )
  header = ("method", "steps", "images", "views", "TFLOP", "seconds")
  return Table(
    "cost of a cell; compiling, of all cells of a method together",
    (*header, "compiling"),
    tuple(lines),
  )


def as_text(shown: Sequence[Table]) -> str:
  """Columns aligned with spaces."""
  parts = []
  for table in shown:
    everything = (table.header, *table.lines)
    widths = [max(map(len, column)) for column in zip(*everything, strict=True)]
    lines = [
      "  ".join(
        cell.rjust(width) if i else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(line, widths, strict=True))
      ).rstrip()
      for line in everything
    ]
    parts.append("\n".join([table.title, *lines]))
  return "\n\n".join(parts) + "\n"


def as_markdown(shown: Sequence[Table]) -> str:
  """The same, to be put into a page."""
  parts = []
  for table in shown:
    rule = ("---", *("--:" for _ in table.header[1:]))
    lines = [
      f"| {' | '.join(cell.strip() for cell in line)} |"
      for line in (table.header, rule, *table.lines)
    ]
    parts.append("\n".join([f"{table.title}:", "", *lines]))
  return "\n\n".join(parts) + "\n"


def draw(
  path: pathlib.Path, rows: _Rows, names: Mapping[str, str], title: str
) -> None:
  """Draws a panel for each score, a line for each method.

  Means, sd, and each draw as a faint mark, by the number of labels.

  Args:
    path: the PNG to write.
    rows: finished cells.
    names: as of `tables`.
    title: of the figure.
  """
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  fields = _there(rows)
  shown = [m for m in names if any(row["method"] == m for row in rows)]
  size = (1.6 + 2.4 * len(fields), 1.6 + 0.36 * len(shown))
  figure = Figure(figsize=size, layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  figure.suptitle(
    "\n".join(textwrap.wrap(title, round(13 * size[0]))), fontsize=9
  )
  panels = figure.subplots(
    1, len(fields), squeeze=False, sharex=True, sharey=True
  )[0]
  for axes, field in zip(panels, fields, strict=True):
    _draw_score(axes, rows, shown, field)
  # The first method is at the top.
  panels[0].set_yticks(range(len(shown)), [names[m] for m in shown])
  panels[0].set_ylim(len(shown) - 0.5, -0.5)
  handles, labels = panels[0].get_legend_handles_labels()
  # Inside a panel it would hide some of the points.
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=len(labels),
    frameon=False,
    fontsize=9,
  )
  file = io.BytesIO()
  figure.savefig(file, dpi=120)
  path.write_bytes(file.getvalue())


def _draw_score(
  axes: Any, rows: _Rows, methods: Sequence[str], field: str
) -> None:
  """One panel; numbers of labels stand below each other at a method."""
  counts = sorted({row["labels"] for row in rows})
  for place, labels in enumerate(counts):
    color, mark = _STYLES[place % len(_STYLES)]
    offset = 0.5 * ((place + 0.5) / len(counts) - 0.5)
    points = []
    for at, method in enumerate(methods):
      values = [
        100 * row[field]
        for row in rows
        if (row["method"], row["labels"]) == (method, labels) and field in row
      ]
      if values:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        points.append((statistics.mean(values), at + offset, spread))
        where = [at + offset] * len(values)
        axes.scatter(values, where, s=10, color=color, alpha=0.35, lw=0)
    if not points:
      continue
    x, y, error = zip(*points, strict=True)
    axes.errorbar(
      x,
      y,
      xerr=error,
      color=color,
      marker=mark,
      markersize=5,
      ls="none",
      lw=1.2,
      capsize=2,
      label=f"{labels} a class",
    )
  axes.set_title(SCORES[field], fontsize=10)
  axes.set_xlabel("%")
  axes.grid(alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)
