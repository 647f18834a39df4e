"""Section `method` of RoPAWS."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from paws_jax.config import fields
from paws_jax.config.methods import paws


@dataclasses.dataclass(frozen=True)
class Config(paws.Config):
  """Fields of RoPAWS (2023), those of PAWS among them."""

  soft_nn_title: ClassVar[str | None] = None

  name: str = fields.field("ropaws")
  # Weight of all supports together in the density, over that of all unlabelled
  # images.
  label_mass_ratio: float = fields.field(5.0, fields.POSITIVE)
  # Temperature of the probability of being of a known class (3 for ImageNet,
  # 0.1 for CIFAR-10).
  in_domain_temperature: float = fields.field(3.0, fields.TEMPERATURE)
  # Exponent of that probability, as the weight of an image.
  in_domain_power: float = fields.field(1.0, fields.NOT_NEGATIVE)
  # Iterations of the fixed point, each with an all-gather.
  num_iterations: int = fields.field(20, fields.NOT_NEGATIVE)
  # label_mass_ratio as the published trainer has it, of the unlabelled images
  # of one of its devices and of the supports of one class.
  as_released: bool = fields.field(False)
  # Of as_released: unlabelled images on one device of the published trainer.
  released_batch_size: int = fields.field(64, fields.AT_LEAST_ONE)
