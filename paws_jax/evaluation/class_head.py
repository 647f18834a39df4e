"""Accuracy of a linear layer that was trained with its encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from paws_jax.evaluation import accuracy
from paws_jax.evaluation import protocols


def probabilities(head: Mapping[str, Any], features: np.ndarray) -> np.ndarray:
  """Computes the probabilities of classes.

  Args:
    head: {"kernel" [d, K], "bias" [K]}.
    features: [n, d], of the trunk.

  Returns:
    [n, K]; rows sum to 1.
  """
  kernel, bias = np.asarray(head["kernel"]), np.asarray(head["bias"])
  logits = np.asarray(features) @ kernel + bias
  return np.asarray(jax.nn.softmax(logits, axis=-1))


def accuracies(
  head: Mapping[str, Any], features: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
  """Computes {"top1", "top5"}, fractions, of at least one image.

  Args:
    head: as of `probabilities`.
    features: [n, d].
    labels: [n] integers.
  """
  probs = probabilities(head, features)
  return {f"top{k}": accuracy.top_k_accuracy(probs, labels, k) for k in (1, 5)}


def outcome(
  part: str, head: Mapping[str, Any], queries: protocols.EmbeddedImages
) -> protocols.Outcome:
  """Measures the layer on images of a part of the data.

  Args:
    part: "test" or "validation".
    head: as of `probabilities`.
    queries: with the features of the trunk.
  """
  probs = probabilities(head, queries.layers["trunk"])
  return protocols.Outcome(
    title="class head",
    protocol="class_head",
    part=part,
    settings={"embedding": "trunk"},
    ranks=protocols.ranked(probs),
    labels=queries.labels,
    num_classes=probs.shape[-1],
    probabilities=probs,
  )
