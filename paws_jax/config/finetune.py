"""Section `finetune` of a recipe."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FinetuneConfig:
  """Section `finetune` of a recipe; fields are explained in config.base."""

  protocol: str
  learning_rates: tuple[float, ...]
  epochs: int
  batch_size: int
  crop_scale: tuple[float, float]
  aspect_ratio: tuple[float, float]
  holdout: str
  holdout_fraction: float
  holdout_file: str
  refit: bool
