"""Predictions as rows of a table: predictions.csv or .parquet."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from paws_jax.classifier import predictions as predictions_lib
from paws_jax.predict import csv_rows
from paws_jax.predict import parquet
from paws_jax.predict import rows_file

SUFFIXES = (".csv", ".parquet")
NUM_SUPPORTS = 3
_NUM_TOP = 5


class PredictionsFile(rows_file.RowsFile):
  """A file of predictions; see `rows_file`."""

  outcome = "predicted"

  def _convert(self, source: pathlib.Path, target: pathlib.Path) -> None:
    parquet.from_csv(source, target, self._header)

  def _reopen(self, source: pathlib.Path, target: pathlib.Path) -> str:
    return parquet.to_csv(source, target, self._header)


def columns(
  num_classes: int, num_supports: int, *, in_domain: bool = False
) -> list[str]:
  """Names of the columns.

  Args:
    num_classes: of the classifier; of more than five, the first five stand.
    num_supports: of the bank; of more than three, the first three stand.
    in_domain: whether the classifier says it.
  """
  names = ["path", "predicted_class", "probability"]
  for k in range(1, min(num_classes, _NUM_TOP) + 1):
    names += [f"top{k}_class", f"top{k}_probability"]
  names += ["entropy", "novelty"] + ["in_domain"] * in_domain
  for k in range(1, min(num_supports, NUM_SUPPORTS) + 1):
    names += [f"support_{k}", f"support_{k}_class", f"support_{k}_weight"]
  return names


def rows(
  names: Sequence[str],
  predictions: predictions_lib.Predictions,
  classifier: Any,
) -> Iterator[list[str]]:
  """The rows of a batch.

  Args:
    names: of its images.
    predictions: of them.
    classifier: `classifier.Classifier`.
  """
  classes, support_bank = classifier.class_names, classifier.support_bank
  best = (-predictions.probabilities).argsort(axis=-1, kind="stable")
  for i, name in enumerate(names):
    chances = predictions.probabilities[i]
    chosen = predictions.classes[i]
    row = [name, classes[chosen], csv_rows.number(chances[chosen])]
    for k in best[i, :_NUM_TOP]:
      row += [classes[k], csv_rows.number(chances[k])]
    row += [
      csv_rows.number(predictions.entropy[i]),
      csv_rows.number(predictions.novelty[i]),
    ]
    if predictions.in_domain is not None:
      row.append(csv_rows.number(predictions.in_domain[i]))
    for support, weight in zip(
      predictions.support_indices[i],
      predictions.support_weights[i],
      strict=True,
    ):
      label = support_bank.labels[support]
      row += [
        support_bank.names[support],
        classes[label],
        csv_rows.number(weight),
      ]
    yield row
