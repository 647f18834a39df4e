"""A classifier in five lines, for people at a prompt."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from paws_jax import text

_LONGEST_NAME = 40


def head_words(classifier: Any) -> str:
  """Says what head decides: one of pre-training, or a fine-tuned one."""
  return "a class head" if is_class_head(classifier) else "a fine-tuned head"


def is_class_head(classifier: Any) -> bool:
  """Returns whether the head of a classifier was trained with the trunk."""
  return is_on_trunk(classifier) and not classifier.origin.get("finetuned")


def is_on_trunk(classifier: Any) -> bool:
  """Returns whether the head of a classifier reads the trunk's features."""
  return classifier.model.get("projection_layers") == 0


def summarize(classifier: Any) -> str:
  """Describes a `Classifier`: classes, vote, supports, encoder, origin."""
  names = text.first_few(
    repr(name[:_LONGEST_NAME]) for name in classifier.class_names
  )
  decides = "a vote of the supports"
  if classifier.head is not None:
    decides = head_words(classifier)
  leaves = jax.tree.leaves(classifier.variables.get("params", {}))
  parameters = sum(np.size(leaf) for leaf in leaves)
  size = " x ".join(map(str, classifier.preprocessing.shape))
  known = [name for name in ("dataset", "step") if name in classifier.origin]
  origin = ", ".join(f"{name} {classifier.origin[name]}" for name in known)
  return "\n".join(
    (
      f"Classifier of {classifier.num_classes} classes: {names}",
      f"  decides   {decides}, temperature {classifier.temperature:g}",
      f"  supports  {classifier.support_bank!r}",
      f"  encoder   {classifier.model.get('name')}, {parameters:,} parameters, "
      f"images {size}",
      f"  origin    {origin or 'unknown'}",
    )
  )
