"""Section `method` of SimCLR with SuNCEt."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import support as support_lib
from paws_jax.config.methods import base
from paws_jax.config.methods import simclr


@dataclasses.dataclass(frozen=True)
class Config(simclr.Config):
  """Fields of SuNCEt (2020), those of SimCLR among them."""

  allows_bn_groups = False

  name: str = fields.field("suncet")
  # Weight of the SuNCEt term; 1 in the paper.
  support_loss_weight: float = fields.field(1.0, fields.NOT_NEGATIVE)
  # Steps after which labels no longer count. This and the next field 0: they
  # count to the end.
  supervised_until: int = fields.field(0, fields.NOT_NEGATIVE)
  # The same in epochs, instead.
  supervised_until_epochs: float = fields.field(0.0, fields.NOT_NEGATIVE)

  def check(self) -> None:
    """Refuses labels without effect, and two ends of their term."""
    if not self.support_loss_weight:
      raise errors.InputError(
        f"method.support_loss_weight is 0 but method.name is {self.name!r}, "
        "whose labels then do nothing: set it to 1, or use a method without "
        "labels."
      )
    base.check_end_of_labels(self)

  def check_support(self, support: support_lib.Support) -> None:
    """Refuses supports without others of the same class."""
    weight = self.support_loss_weight
    condition = f" with method.support_loss_weight = {weight:g}"
    base.check_pairs(support, self.name, condition)

  def in_steps(self, steps_per_epoch: int) -> Config:
    """Returns the section with its numbers of epochs as numbers of steps."""
    return base.end_of_labels_in_steps(self, steps_per_epoch)
