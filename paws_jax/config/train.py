"""Section `train` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Train(fields.Section):
  """Length of training, and how a step is computed."""

  # Unlabelled images a step; steps per epoch = floor(images / batch_size).
  batch_size: int = fields.field(4096, fields.AT_LEAST_ONE)
  epochs: int = fields.field(100, fields.AT_LEAST_ONE)
  # Steps in one call of the compiled program (a lax.scan over them).
  steps_per_call: int = fields.field(1, fields.AT_LEAST_ONE)
  # Recompute activations in the backward pass to save memory: "none", "dots"
  # (keep convolutions and matrix products) or "all".
  remat: str = fields.field("none", fields.one_of("none", "dots", "all"))
  # Devices that share BatchNorm statistics. 0: all, whatever their number;
  # anything else makes results depend on the number of devices.
  bn_group_size: int = fields.field(0, fields.NOT_NEGATIVE)
