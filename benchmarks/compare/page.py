"""What a comparison shows: tables as text and markdown, and a figure."""

from __future__ import annotations

import dataclasses
import io
import pathlib
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

_Rows = Sequence[Mapping[str, Any]]
# Told apart by those who see colours differently (Okabe and Ito, 2008), and by
# their marks.
_STYLES = (
  ("#000000", "o"),
  ("#E69F00", "s"),
  ("#56B4E9", "^"),
  ("#009E73", "D"),
  ("#CC79A7", "v"),
)
_SCORES = {"top1": "accuracy", "auroc": "AUROC, known against unknown"}


@dataclasses.dataclass(frozen=True)
class Table:
  """A heading, the names of the columns, and lines of as many cells."""

  title: str
  header: tuple[str, ...]
  lines: tuple[tuple[str, ...], ...]


def tables(rows: _Rows, names: Mapping[str, str]) -> list[Table]:
  """Accuracies, where there are any AUROCs, and costs.

  Args:
    rows: finished cells.
    names: of methods, by their key; in the order that they are shown in.
  """
  shown = [_scores(rows, names, "top1", "top-1 % on test images")]
  if any("auroc" in row for row in rows):
    title = "AUROC % of the in-domain probability, known against unknown"
    shown.append(_scores(rows, names, "auroc", title))
  return [*shown, _costs(rows, names)]


def _scores(
  rows: _Rows, names: Mapping[str, str], field: str, title: str
) -> Table:
  """A line for each method, a column for each number of labels."""
  columns = sorted({row["labels"] for row in rows})
  seeds = len({row["seed"] for row in rows})
  lines = []
  for method, name in names.items():
    mine = [row for row in rows if row["method"] == method]
    fields = {field: name}
    if field == "top1":
      fields["top1_before"] = "  before fine-tuning"
    for each, label in fields.items():
      if any(row.get(each) is not None for row in mine):
        cells = [
          _cell([100 * r[each] for r in mine if r["labels"] == labels], seeds)
          for labels in columns
        ]
        lines.append((label, *cells))
  header = ("method", *(f"{n} a class" for n in columns))
  title = f"{title}; mean ± sd over {seeds} label draws (fewer: in brackets)"
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
  """Draws scores against labels: means, sd, and each draw as a faint mark.

  Args:
    path: the PNG to write.
    rows: finished cells.
    names: as of `tables`.
    title: of the figure.
  """
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  fields = [f for f in _SCORES if any(f in row for row in rows)]
  figure = Figure(figsize=(6.4 * len(fields), 4.6), layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  figure.suptitle(title, fontsize=10)
  for axes, field in zip(
    figure.subplots(1, len(fields), squeeze=False)[0], fields, strict=True
  ):
    _draw_score(axes, rows, names, field)
  handles, labels = axes.get_legend_handles_labels()
  # Inside a panel it would hide some of the points.
  figure.legend(
    handles,
    labels,
    loc="outside lower center",
    ncols=3 * len(fields),
    frameon=False,
    fontsize=9,
  )
  file = io.BytesIO()
  figure.savefig(file, dpi=120)
  path.write_bytes(file.getvalue())


def _draw_score(
  axes: Any, rows: _Rows, names: Mapping[str, str], field: str
) -> None:
  """One panel; methods stand beside each other at a number of labels."""
  columns = sorted({row["labels"] for row in rows})
  shown = [m for m in names if any(row["method"] == m for row in rows)]
  for place, method in enumerate(shown):
    colour, mark = _STYLES[list(names).index(method) % len(_STYLES)]
    offset = 0.09 * (place - (len(shown) - 1) / 2)
    points = []
    for at, labels in enumerate(columns):
      values = [
        100 * row[field]
        for row in rows
        if row["method"] == method and row["labels"] == labels
      ]
      if values:
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        points.append((at + offset, statistics.mean(values), spread))
        where = [at + offset] * len(values)
        axes.scatter(where, values, s=12, color=colour, alpha=0.35, lw=0)
    x, y, error = zip(*points, strict=True)
    axes.errorbar(
      x,
      y,
      yerr=error,
      color=colour,
      marker=mark,
      markersize=6,
      lw=1.2,
      capsize=3,
      label=names[method],
    )
  axes.set_xticks(range(len(columns)), [str(n) for n in columns])
  axes.set_xlim(-0.5, len(columns) - 0.5)
  axes.set_xlabel("labelled images of each class")
  axes.set_ylabel(f"{_SCORES[field]}, %")
  axes.grid(axis="y", alpha=0.3)
  axes.spines[["top", "right"]].set_visible(False)
