"""Section `checkpoint` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Checkpoint(fields.Section):
  """When the state of a run is saved, and what is kept."""

  # Steps between checkpoints; 0: at the end (and at a signal) only.
  every_steps: int = fields.field(0, fields.NOT_NEGATIVE)
  # Checkpoints at multiples of this are kept for good; 0: the last two only.
  keep_every_steps: int = fields.field(0, fields.NOT_NEGATIVE)

  def check(self) -> None:
    """Refuses to keep checkpoints of steps that have none."""
    every, keep = self.every_steps, self.keep_every_steps
    if keep and (not every or keep % every):
      raise errors.InputError(
        f"checkpoint.keep_every_steps is {keep} but checkpoint.every_steps is "
        f"{every}: make the former a multiple of the latter."
      )
