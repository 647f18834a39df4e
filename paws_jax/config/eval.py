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
