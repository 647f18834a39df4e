"""Section `method` of SwAV."""

from __future__ import annotations

import dataclasses
import typing

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config.methods import base

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of SwAV (2020)."""

  name: str = fields.field("swav")
  # Directions that images are assigned to; at least as many as classes.
  num_prototypes: int = fields.field(3000, fields.between(2, 2**20))
  # ε of the assignments: large values make them uniform.
  epsilon: float = fields.field(0.05, fields.TEMPERATURE)
  # Sinkhorn-Knopp iterations.
  num_iterations: int = fields.field(3, fields.between(1, 1000))
  # Steps in which prototypes do not change.
  freeze_steps: int = fields.field(313, fields.NOT_NEGATIVE)
  # Earlier embeddings of each large crop that are assigned beside those of a
  # step, rounded down to entire steps; 0: none. For small batches.
  queue_size: int = fields.field(0, fields.NOT_NEGATIVE)
  # Epochs after which the queue is filled; it is used once it is full.
  queue_from_epochs: float = fields.field(15.0, fields.NOT_NEGATIVE)
  # Report feature rank and spread, and the share of prototypes that are the
  # first choice of an image; they train nothing.
  health_metrics: bool = fields.field(True)

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Refuses a queue that does not hold a batch."""
    if 0 < self.queue_size < recipe.train.batch_size:
      raise errors.InputError(
        f"method.queue_size is {self.queue_size} but train.batch_size is "
        f"{recipe.train.batch_size}: the queue must hold the embeddings of at "
        "least one step; 0 is no queue."
      )

  def check_length(
    self, *, batch_size: int, steps_per_epoch: int, total_steps: int
  ) -> None:
    """Refuses prototypes that never change, and a queue that is never full."""
    filled = self.queue_size // batch_size
    first = round(self.queue_from_epochs * steps_per_epoch) + filled
    if self.queue_size and first >= total_steps:
      raise errors.InputError(
        f"method.queue_from_epochs is {self.queue_from_epochs:g} and "
        f"method.queue_size {self.queue_size}, but the run has {total_steps} "
        f"steps: the queue would be full after step {first}; fill it earlier, "
        "train longer, or set method.queue_size to 0."
      )
    if self.freeze_steps >= total_steps:
      raise errors.InputError(
        f"method.freeze_steps is {self.freeze_steps} but the run has "
        f"{total_steps} steps: the prototypes would never change; lower it, or "
        "train longer."
      )
