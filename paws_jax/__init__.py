"""PAWS: semi-supervised learning with support samples, in JAX and Flax."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
  """Gives `paws_jax.Classifier`, imported when it is first asked for."""
  if name == "Classifier":
    from paws_jax.classifier import classifier

    return classifier.Classifier
  raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
