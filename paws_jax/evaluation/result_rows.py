"""The rows that an evaluation adds to results.json, and their table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax.evaluation import accuracy
from paws_jax.evaluation import protocols
from paws_jax.runs import provenance
from paws_jax.runs import recipe as recipe_lib

TASK = "evaluate"


def per_class(outcome: protocols.Outcome) -> list[float | None]:
  """Top-1 accuracy of each class, a fraction; None: it has no image."""
  fractions = accuracy.per_class_accuracy(outcome.confusion)
  return [None if np.isnan(value) else float(value) for value in fractions]


def rows(
  trained: Any, outcomes: Sequence[protocols.Outcome]
) -> list[dict[str, Any]]:
  """A row for each outcome, as JSON gives it back: with lists for tuples.

  Args:
    trained: what was measured.
    outcomes: by several protocols; the first one's row has the accuracy of
      every class, too.
  """
  stored = (trained.workdir / recipe_lib.RECIPE).read_bytes()
  recipe = hashlib.sha256(stored).hexdigest()
  made = [_row(trained, outcome, recipe) for outcome in outcomes]
  made[0]["per_class_top1"] = per_class(outcomes[0])
  return json.loads(json.dumps(made, allow_nan=False))


def _row(
  trained: Any, outcome: protocols.Outcome, recipe: str
) -> dict[str, Any]:
  """A result row; accuracies are fractions."""
  dataset, config = trained.experiment.dataset, trained.config
  count = len(outcome.labels)
  row = {
    "task": TASK,
    "protocol": outcome.protocol,
    "title": outcome.title,
    **outcome.settings,
    "method": config.method.name,
    "dataset": dataset.name,
    "split_seed": dataset.split.split_seed,
    "split_hash": dataset.split.hash,
    "seed": config.seed,
    "recipe": recipe,
    "step": trained.step,
    "num_labels": int(dataset.labelled.readable.sum()),
    "part": outcome.part,
    "num_images": count,
  }
  for k in (1, 5):
    row[f"top{k}"] = row[f"top{k}_interval"] = None
    # A single neighbour names a single class.
    if k == 1 or outcome.settings.get("k") != 1:
      fraction = row[f"top{k}"] = outcome.top(k)
      row[f"top{k}_interval"] = accuracy.confidence_interval(fraction, count)
  row["mean_per_class_top1"] = float(
    np.mean([v for v in per_class(outcome) if v is not None])
  )
  if outcome.calibration is not None:
    row["ece"] = outcome.calibration.error
    row["ece_bins"] = len(outcome.calibration.counts)
  return row | {"version": provenance.version()}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
  """The rows of an evaluation for a reader."""
  first = rows[0]
  if first["part"] == "labelled":
    images = "no test images"
  else:
    images = f"{first['num_images']} {first['part']} images"
  lines = [
    f"{first['dataset']}: {first['num_labels']} labels, {images}, step "
    f"{first['step']}, 95 % intervals",
    f"{'':34}{'top-1':24}{'top-5':24}ECE",
  ]
  for row in rows:
    cells = []
    for name in ("top1", "top5"):
      if row[name] is None:
        cells.append(" " * 24)
        continue
      low, high = row[f"{name}_interval"]
      cells.append(f"{row[name]:6.1%} [{low:.1%}, {high:.1%}]".ljust(24))
    error = f"{row['ece']:.1%}" if "ece" in row else ""
    lines.append(f"{row['title']:34}{''.join(cells)}{error}".rstrip())
  probes = [row for row in rows if row["protocol"] == "linear_probe"]
  if probes:
    lines += ["", _probe_protocol(probes)]
  return "\n".join(lines)


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
    "linear probe: logistic regression on standardised, frozen features of "
    "the evaluation crops,\n"
    f"by L-BFGS; L2 penalty {chosen}, {how}"
  )
