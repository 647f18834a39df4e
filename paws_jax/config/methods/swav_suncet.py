"""Section `method` of SwAV with SuNCEt."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields
from paws_jax.config import support as support_lib
from paws_jax.config.methods import base
from paws_jax.config.methods import swav


@dataclasses.dataclass(frozen=True)
class Config(swav.Config):
  """Fields of SwAV with SuNCEt (2020), those of SwAV among them."""

  name: str = fields.field("swav_suncet")
  # Weight of the SuNCEt term.
  support_loss_weight: float = fields.field(1.0, fields.POSITIVE)
  # Divides the similarities of the SuNCEt term.
  support_temperature: float = fields.field(0.1, fields.TEMPERATURE)
  # Steps after which labels no longer count. This and the next field 0: they
  # count to the end.
  supervised_until: int = fields.field(0, fields.NOT_NEGATIVE)
  # The same in epochs, instead.
  supervised_until_epochs: float = fields.field(0.0, fields.NOT_NEGATIVE)

  def check(self) -> None:
    """Refuses two ends of the term of the labels."""
    base.check_end_of_labels(self)

  def check_support(self, support: support_lib.Support) -> None:
    """Refuses supports that are the only ones of their class."""
    base.check_pairs(support, self.name)

  def in_steps(self, steps_per_epoch: int) -> Config:
    """Returns the section with its numbers of epochs as numbers of steps."""
    return base.end_of_labels_in_steps(self, steps_per_epoch)
