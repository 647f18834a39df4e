"""Section `log` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Log(fields.Section):
  """What a run writes and shows."""

  # Steps between lines of metrics.jsonl (means over those steps).
  every_steps: int = fields.field(1, fields.AT_LEAST_ONE)
  # Also write TensorBoard files (loads TensorFlow).
  tensorboard: bool = fields.field(False)
  # Shown when a run ends: what a reader may want to try after this recipe.
  next_command: str = fields.field("")
