"""What a fine-tuning run ends with: its measurement, its table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paws_jax.evaluation import accuracy
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
  row = {"num_test": count}
  if count:
    probs, labels = scores.classify(
      protocol,
      final.params,
      final.model_state,
      dataset.test,
      dataset.labelled,
    )
  for k in (1, 5):
    value = accuracy.top_k_accuracy(probs, labels, k) if count else None
    row[f"top{k}"] = value
    row[f"top{k}_interval"] = (
      accuracy.confidence_interval(value, count) if count else None
    )
  return row


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
  """The table a user came for, out of a result row."""
  lines = [
    f"{row['dataset']}: fine-tuned on {row['num_labels']} labels "
    f"({row['protocol']}), {row['num_test'] or 'no'} test images"
  ]
  for member in row["sweep"]:
    top1 = member["holdout_top1"]
    if top1 is not None:
      lines.append(
        f"  learning rate {member['learning_rate']:<8g} {top1:6.1%} of "
        f"{row['num_holdout']} held out, after epoch {member['epoch']}"
      )
  lines.append(
    f"chosen: learning rate {row['learning_rate']:g}, {row['epochs']} epochs"
    + ("; then all labelled images" if row["refit"] else "")
  )
  if row["num_test"]:
    for name in ("top1", "top5"):
      low, high = row[f"{name}_interval"]
      lines.append(
        f"test {name}   {row[name]:6.1%} [{low:.1%}, {high:.1%}], 95 % interval"
      )
  return "\n".join(lines)
