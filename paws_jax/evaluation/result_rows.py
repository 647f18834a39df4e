"""Rows of results.json, whatever the task, and their tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax.data import dataset as dataset_lib
from paws_jax.evaluation import accuracy
from paws_jax.evaluation import linear_protocols
from paws_jax.evaluation import protocols
from paws_jax.runs import provenance

TASK = "evaluate"
# Of rows that no encoder has a part in, and what they lack.
BASELINE = "baseline"
_OF_ENCODER = ("step", "recipe")
# Widths of a table's first column, at least, and of one with an interval.
_TITLE, _CELL = 26, 24


def describe_run(
  recipe: config_lib.Recipe, dataset: dataset_lib.Dataset
) -> dict[str, Any]:
  """Fields of every row: which run, on which data, with which labels.

  Args:
    recipe: the run's recipe.
    dataset: its data.
  """
  return {
    "method": recipe.method.name,
    "dataset": dataset.name,
    "split_seed": dataset.split.split_seed,
    "split_hash": dataset.split.hash,
    "seed": recipe.seed,
  }


def create(
  task: str,
  protocol: str,
  run: Mapping[str, Any],
  measured: Mapping[str, Any],
  *,
  settings: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
  """A row of results.json: what was measured on what, and how.

  Args:
    task: that measured it.
    protocol: how; the report has words for its name.
    run: of `describe_run`, and how far the run is: JSON-serializable.
    measured: accuracies and other numbers.
    settings: of the protocol.
  """
  return {
    "task": task,
    "protocol": protocol,
    **(settings or {}),
    **run,
    **measured,
    "version": provenance.version(),
  }


def with_intervals(
  fractions: Mapping[str, float | None], count: int, *, prefix: str = ""
) -> dict[str, Any]:
  """Accuracies of a row, each followed by its 95 % interval.

  Args:
    fractions: by name: "top1"; None where it was not measured.
    count: images.
    prefix: before each name: "validation_".
  """
  fields: dict[str, Any] = {}
  for name, fraction in fractions.items():
    interval = None
    if fraction is not None:
      interval = accuracy.confidence_interval(fraction, count)
    fields[prefix + name] = fraction
    fields[f"{prefix}{name}_interval"] = interval
  return fields


def per_class(outcome: protocols.Outcome) -> list[float | None]:
  """Top-1 accuracy of each class, a fraction; None: it has no image."""
  fractions = accuracy.per_class_accuracy(outcome.confusion)
  return [None if np.isnan(value) else float(value) for value in fractions]


def rows(
  run: Mapping[str, Any], outcomes: Sequence[protocols.Outcome]
) -> list[dict[str, Any]]:
  """A row for each outcome, as JSON gives it back: with lists for tuples.

  Args:
    run: see `create`.
    outcomes: by several protocols; the first one's row has the accuracy of
      every class, too.
  """
  made = []
  for outcome in outcomes:
    task, described = TASK, run
    if outcome.settings.get("embedding") == "pixels":
      task = BASELINE
      described = {k: v for k, v in run.items() if k not in _OF_ENCODER}
    made.append(
      create(
        task,
        outcome.protocol,
        described,
        _measured(outcome),
        settings={"title": outcome.title, **outcome.settings},
      )
    )
  made[0]["per_class_top1"] = per_class(outcomes[0])
  return json.loads(json.dumps(made, allow_nan=False))


def _measured(outcome: protocols.Outcome) -> dict[str, Any]:
  count = len(outcome.labels)
  # A single neighbor names a single class.
  single = outcome.settings.get("k") == 1
  fractions = {
    "top1": outcome.top(1),
    "top5": None if single else outcome.top(5),
  }
  fields = {
    "part": outcome.part,
    "num_images": count,
    **with_intervals(fractions, count),
    "mean_per_class_top1": float(
      np.mean([v for v in per_class(outcome) if v is not None])
    ),
  }
  if outcome.calibration is not None:
    fields["ece"] = outcome.calibration.error
    fields["ece_bins"] = len(outcome.calibration.counts)
  return fields


def table(
  heading: str,
  lines: Sequence[tuple[str, Sequence[str]]],
  *,
  columns: Sequence[str] = ("top-1", "top-5"),
) -> str:
  """Lines of text in columns, under a heading.

  Args:
    heading: what was measured on what.
    lines: (title, cells); cells as of `cell`, "" for an empty one.
    columns: names of the cells.
  """
  width = max([_TITLE, *(len(title) + 2 for title, _ in lines)])
  text = [heading]
  for title, cells in [("", columns), *lines]:
    row = title.ljust(width) + "".join(cell.ljust(_CELL) for cell in cells)
    text.append(row.rstrip())
  return "\n".join(text)


def cell(row: Mapping[str, Any], name: str, count: int) -> str:
  """An accuracy of a row with its 95 % interval; "": it was not measured.

  Args:
    row: of results.json.
    name: of the field: "top1".
    count: images.
  """
  if row.get(name) is None:
    return ""
  low, high = accuracy.confidence_interval(row[name], count)
  return f"{row[name]:6.1%} [{low:.1%}, {high:.1%}]"


def evaluation_table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows of an evaluation for a reader."""
  first = rows[0]
  if first["part"] == "labelled":
    images = "no test images"
  else:
    images = f"{first['num_images']} {first['part']} images"
  text = table(
    f"{first['dataset']}: {first['num_labels']} labels, {images}, step "
    f"{first['step']}, 95 % intervals",
    [
      (
        row["title"],
        (
          cell(row, "top1", row["num_images"]),
          cell(row, "top5", row["num_images"]),
          f"{row['ece']:.1%}" if "ece" in row else "",
        ),
      )
      for row in rows
    ],
    columns=("top-1", "top-5", "ECE"),
  )
  probes = [row for row in rows if row["protocol"] == "linear_probe"]
  notes = [_probe_protocol(probes)] if probes else []
  notes += [
    _linear_protocol(row)
    for row in rows
    if row["protocol"] in linear_protocols.PROTOCOLS
  ]
  return "\n\n".join([text, *notes])


def _probe_protocol(rows: Sequence[Mapping[str, Any]]) -> str:
  """How the linear probes were fitted."""
  chosen = ", ".join(f"{r['strength']:g} on {r['embedding']}" for r in rows)
  first = rows[0]
  if first["num_folds"]:
    how = (
      f"chosen by the log loss of {first['num_left_out']} labelled images "
      f"left out in turn ({first['num_folds']} folds)"
    )
  else:
    how = "fixed, since no class has two labelled images to leave one out"
  return (
    "linear probe: logistic regression on standardized, frozen features of "
    "the evaluation crops,\n"
    f"by L-BFGS; L2 penalty {chosen}, {how}"
  )


def _linear_protocol(row: Mapping[str, Any]) -> str:
  """How a linear layer was trained."""
  few = ""
  if "batch_size_wanted" in row:
    few = f" (all labelled, not {row['batch_size_wanted']})"
  return (
    f"{row['protocol']}: a linear layer on frozen features of random crops, "
    f"{row['epochs']} epochs\n"
    f"of batches of {row['batch_size']}{few}, learning rate "
    f"{row['learning_rate']:g}; after the last epoch"
  )
