"""The result of a fine-tuning run: its measurement and its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paws_jax.evaluation import accuracy
from paws_jax.evaluation import result_rows
from paws_jax.finetune import protocols
from paws_jax.finetune import scores
from paws_jax.finetune import sweep


def measure(
  protocol: protocols.LinearHead | protocols.Suncet,
  final: sweep.Member,
) -> dict[str, Any]:
  """Accuracy on the test images, by the weights that are saved.

  Returns:
    Fractions with their intervals; None where there are no test images.
  """
  dataset = protocol.trained.experiment.dataset
  count = len(dataset.test) if dataset.test is not None else 0
  fractions: dict[str, float | None] = dict.fromkeys(("top1", "top5"))
  if dataset.test is not None and count:
    probs, labels = scores.classify(
      protocol,
      final.params,
      final.batch_stats,
      dataset.test,
      dataset.labelled,
    )
    fractions = {
      f"top{k}": accuracy.top_k_accuracy(probs, labels, k) for k in (1, 5)
    }
  return {
    "num_test": count,
    **result_rows.with_intervals(fractions, count),
  }


def summary(member: sweep.Member) -> dict[str, Any]:
  """What the row says of one learning rate."""
  return {
    "learning_rate": member.learning_rate,
    "epoch": member.epoch,
    "holdout_top1": member.score and member.score["top1"],
    "holdout_cross_entropy": member.score and member.score["cross_entropy"],
    "stopped_early": member.trouble or None,
  }


def table(row: Mapping[str, Any]) -> str:
  """The accuracies of a fine-tuning for a reader, out of its result row."""
  held_out, test = row["num_holdout"], row["num_test"]
  lines = [
    (
      f"learning rate {member['learning_rate']:g}",
      [
        result_rows.cell(member, "holdout_top1", held_out),
        "",
        f"held out, after epoch {member['epoch']}",
      ],
    )
    for member in row["sweep"]
    if member["holdout_top1"] is not None
  ]
  if test:
    cells = [result_rows.cell(row, name, test) for name in ("top1", "top5")]
    lines.append(("test", cells))
  text = result_rows.table(
    f"{row['dataset']}: fine-tuned on {row['num_labels']} labels "
    f"({row['protocol']}), {held_out or 'no'} images held out, {test or 'no'} "
    "test images, 95 % intervals",
    lines,
  )
  return (
    f"{text}\n\nchosen: learning rate {row['learning_rate']:g}, "
    f"{row['epochs']} epochs"
    + ("; then all labelled images" if row["refit"] else "")
  )
