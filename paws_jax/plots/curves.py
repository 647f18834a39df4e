"""Curves of a run: losses, accuracy and health metrics."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from paws_jax.monitoring import monitor
from paws_jax.monitoring import reference_curves

# (metric, label, style) of each panel. A panel shows the metrics that a method
# reports; losses that it does not minimize are dashed.
_LOSSES = (
  ("cross_entropy", "cross-entropy", "-"),
  ("me_max_kl", "me-max: KL(mean ‖ prior)", "-"),
  ("support_loss", "support labels", "-"),
  ("entropy", "entropy of predictions", "-"),
  ("nt_xent", "NT-Xent", "--"),
  ("suncet", "SuNCEt", "--"),
  ("info_nce", "InfoNCE", "-"),
  ("byol", "BYOL", "-"),
  ("simsiam", "1 + SimSiam", "-"),
  ("assignment_kl", "assignments: KL", "-"),
  ("mean_shift", "mean shift", "-"),
  ("consistency", "consistency", "--"),
)
_ACCURACY = (
  ("class_head_top1", "class head top-1", "s-"),
  ("soft_nn_top1", "soft-NN top-1", "o-"),
  ("pseudo_label_accuracy", "pseudo-labels", "s-"),
  ("target_confidence", "target confidence", "-"),
)
_SHARES = (
  ("view_agreement", "views agree", "-"),
  ("classes_used", "classes used", "-"),
  ("mask_rate", "images that count", "-"),
  ("max_similarity", "nearest support, cosine", "-"),
  ("in_domain", "in-domain probability", "-"),
  ("output_std", "spread of embeddings", "-"),
  ("prototypes_used", "prototypes used", "-"),
)
_SIZES = (
  ("feature_rank", "feature rank", "-"),
  ("grad_norm", "gradient", "-"),
  ("relative_update", "step / weights", "-"),
  ("learning_rate", "learning rate", "--"),
  ("trust_ratio_median", "trust ratio", "-"),
)
# Characters of a line below the panels.
_CAPTION_WIDTH = 210


def draw(
  figure: Any,
  grid: Any,
  rows: Sequence[Mapping[str, Any]],
  *,
  losses: Sequence[str],
  reference: reference_curves.Reference | None = None,
) -> None:
  """Draws four panels into the two left columns, and findings below them.

  Args:
    figure: figure of matplotlib.
    grid: its GridSpec, two rows and at least two columns.
    rows: lines of metrics.jsonl.
    losses: metrics that the method minimizes.
    reference: curves to draw behind those of the run.
  """
  rows = [_with_relative_update(row) for row in rows]
  first = figure.add_subplot(grid[0, 0])
  _draw_panel(first, rows, _loss_curves(losses), "Losses", reference)
  first.set_ylabel("nats")
  first.set_ylim(bottom=0)
  panels = [first]
  for place, metrics, title in (
    (grid[1, 0], _ACCURACY, "Accuracy"),
    (grid[0, 1], _SHARES, "Predictions"),
    (grid[1, 1], _SIZES, "Sizes"),
  ):
    axes = figure.add_subplot(place, sharex=first)
    _draw_panel(axes, rows, metrics, title, reference)
    panels.append(axes)
  for axes in panels[1:3]:
    axes.set_ylim(0, 1.02)
  for axes in (panels[1], panels[3]):
    axes.set_xlabel("step")
  _draw_trust_ratios(panels[3], rows)
  if panels[3].get_lines():
    panels[3].set_yscale("log")
  _draw_findings(figure, panels, monitor.recorded(rows))


def _loss_curves(losses: Sequence[str]) -> list[tuple[str, str, str]]:
  """Returns (metric, label, style) of the first panel."""
  found = [
    (name, label, "-" if name in losses else style)
    for name, label, style in _LOSSES
  ]
  known = [name for name, _, _ in _LOSSES]
  return found + [(name, name, "-") for name in losses if name not in known]


def _with_relative_update(row: Mapping[str, Any]) -> Mapping[str, Any]:
  """Adds the norm of a step relative to that of the weights."""
  if not row.get("param_norm"):
    return row
  return {**row, "relative_update": row["update_norm"] / row["param_norm"]}


def _draw_panel(
  axes: Any,
  rows: Sequence[Mapping[str, Any]],
  metrics: Sequence[tuple[str, str, str]],
  title: str,
  reference: reference_curves.Reference | None,
) -> None:
  """Draws the metrics that exist, with their bands behind them."""
  for name, label, style in metrics:
    steps, values = reference_curves.series(rows, name)
    if not len(steps):
      continue
    (line,) = axes.plot(steps, values, style, label=label, markersize=4)
    if reference is not None and name in reference.curves:
      _draw_reference(axes, reference.curves[name], line.get_color())
  _finish(axes, title)


def _draw_reference(
  axes: Any, curve: reference_curves.Curve, color: Any
) -> None:
  axes.plot(curve.steps, curve.mean, ":", color=color, linewidth=1.2)
  if curve.low is not None:
    axes.fill_between(
      curve.steps, curve.low, curve.high, color=color, alpha=0.18, linewidth=0
    )


def _draw_trust_ratios(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
  """Draws the range over all kernels behind the median."""
  steps, low = reference_curves.series(rows, "trust_ratio_min")
  _, high = reference_curves.series(rows, "trust_ratio_max")
  if len(steps) and len(low) == len(high):
    axes.fill_between(steps, low, high, color="grey", alpha=0.2, linewidth=0)


def _draw_findings(
  figure: Any, panels: Sequence[Any], findings: Sequence[monitor.Finding]
) -> None:
  """Draws a numbered line at each start, and sentences below the panels."""
  starts = [finding for finding in findings if not finding.ends]
  for number, finding in enumerate(starts, start=1):
    for axes in panels:
      axes.axvline(finding.step, color="crimson", linestyle="--", linewidth=1)
    panels[0].annotate(
      str(number),
      (finding.step, 1),
      xycoords=("data", "axes fraction"),
      xytext=(3, -11),
      textcoords="offset points",
      color="crimson",
    )
  if starts:
    lines = [
      textwrap.fill(
        f"{number}  {finding.name}, step {finding.step}: {finding.sentence}",
        _CAPTION_WIDTH,
      )
      for number, finding in enumerate(starts, start=1)
    ]
    figure.supxlabel(
      "\n".join(lines), x=0.01, ha="left", fontsize=9, color="crimson"
    )


def _finish(axes: Any, title: str) -> None:
  """Puts title and legend side by side above the axes."""
  axes.set_title(title, loc="left")
  axes.grid(alpha=0.3)
  # matplotlib warns of an empty legend.
  if axes.get_legend_handles_labels()[0]:
    axes.legend(
      frameon=False,
      loc="lower right",
      bbox_to_anchor=(1, 1),
      borderaxespad=0.1,
      ncols=2,
      fontsize=8,
    )
