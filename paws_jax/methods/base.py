"""What every method is: the contract and its defaults."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class MethodConfig:
  """Section `method` of a recipe; fields are explained in config.base."""

  name: str
  temperature: float
  sharpen_temperature: float
  me_max: bool
  prior: str
  prior_probs: tuple[float, ...]
  support_loss_weight: float
  entropy_loss_weight: float
  health_metrics: bool
  detached_keys: bool
  supervised_until: int
  supervised_until_epochs: float
  label_mass_ratio: float
  in_domain_temperature: float
  in_domain_power: float
  num_iterations: int
  as_released: bool
  released_batch_size: int

  def in_steps(self, steps_per_epoch: int) -> MethodConfig:
    """The same section, with what is given in epochs as steps."""
    if not self.supervised_until_epochs:
      return self
    # At least one: no steps would mean all of them.
    steps = max(1, round(self.supervised_until_epochs * steps_per_epoch))
    return dataclasses.replace(
      self, supervised_until=steps, supervised_until_epochs=0.0
    )
