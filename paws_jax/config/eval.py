"""Section `eval` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Eval(fields.Section):
  """Evaluation while and after training."""

  # Steps between soft nearest-neighbor evaluations; 0: at the end only.
  every_steps: int = fields.field(0, fields.NOT_NEGATIVE)
  # Images embedded at once.
  batch_size: int = fields.field(256, fields.BATCH_SIZE)
  # Labelled images a step of --protocol=linear_...; 0: as in its paper.
  linear_batch_size: int = fields.field(0, fields.between(0, 2**20))
  # Passes over the labelled images; 0: as in the paper.
  linear_epochs: int = fields.field(0, fields.NOT_NEGATIVE)
  # Of the first step; 0: that of the paper, proportional to the images a step.
  linear_learning_rate: float = fields.field(0.0, fields.NOT_NEGATIVE)
