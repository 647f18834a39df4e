"""Section `finetune` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Finetune(fields.Section):
  """Fine-tuning on the labels, after pre-training."""

  # "linear_head" (ImageNet: a linear layer on the trunk and the first
  # projection layer) or "suncet" (CIFAR: the soft nearest-neighbor loss).
  protocol: str = fields.field(
    "linear_head", fields.one_of("linear_head", "suncet")
  )
  # At the first step; each is tried, and the best on the hold-out is taken.
  learning_rates: tuple[float, ...] = fields.field(
    (0.01, 0.02, 0.05),
    (
      "different numbers greater than 0",
      lambda x: fields.POSITIVES[1](x) and len(set(x)) == len(x),
    ),
  )
  # Largest number of passes over the labelled images.
  epochs: int = fields.field(50, fields.AT_LEAST_ONE)
  # Labelled images a step, of "linear_head"; "suncet" takes a support set.
  batch_size: int = fields.field(1024, fields.BATCH_SIZE)
  # Area fractions of the crops trained on; flips and rotations are those of
  # section `views`.
  crop_scale: tuple[float, float] = fields.field((0.08, 1.0), fields.SCALE)
  # Width over height of these crops.
  aspect_ratio: tuple[float, float] = fields.field((3 / 4, 4 / 3), fields.RANGE)
  # Of "linear_head": rate of the linear layer, as a multiple of the others'.
  head_learning_rate_ratio: float = fields.field(1.0, fields.POSITIVE)
  # Of "linear_head": "cosine" to 0, or "drops": a fifth after 60 % of the
  # epochs, and again after 80 %.
  schedule: str = fields.field("cosine", fields.one_of("cosine", "drops"))
  # Of "linear_head": kind of the momentum.
  nesterov: bool = fields.field(True)
  # What learning rate and epoch are chosen on: "stratified" (a part of the
  # labelled images), "paper" (more labelled training images, those in
  # holdout_file) or "none" (nothing is chosen: give one learning rate).
  holdout: str = fields.field(
    "stratified", fields.one_of("stratified", "paper", "none")
  )
  # Of "stratified": this share of each class, at least one image; drawn by
  # data.split_seed.
  holdout_fraction: float = fields.field(
    0.2, ("in (0, 1)", lambda x: 0 < x < 1)
  )
  # Of "paper": rows or file names of training images, one a line.
  holdout_file: str = fields.field("")
  # Train once more, on all labelled images, as it was chosen.
  refit: bool = fields.field(True)

  def check(self) -> None:
    """Refuses rates without images to choose by, and unused fields."""
    self._check_unused()
    rates = self.learning_rates
    if self.holdout == "none" and len(rates) > 1:
      raise errors.InputError(
        "finetune.holdout is 'none' but finetune.learning_rates has "
        f"{len(rates)} values, {rates}: without a hold-out nothing can be "
        "chosen; give one learning rate, e.g. "
        "--config.finetune.learning_rates='(0.02,)', or a hold-out."
      )
    if (self.holdout == "paper") != bool(self.holdout_file):
      raise errors.InputError(
        f"finetune.holdout is {self.holdout!r} but finetune.holdout_file is "
        f"{self.holdout_file!r}: 'paper' needs a file that lists labelled "
        "training images beside those of the split, and only 'paper' reads it."
      )

  def _check_unused(self) -> None:
    """Refuses fields of "linear_head" with another protocol."""
    if self.protocol == "linear_head":
      return
    for name in ("head_learning_rate_ratio", "schedule", "nesterov"):
      value, default = getattr(self, name), getattr(Finetune, name)
      if value != default:
        raise errors.InputError(
          f"finetune.{name} is {value!r} but finetune.protocol is "
          f"{self.protocol!r}, which does not use it: leave it at {default!r}, "
          "or set finetune.protocol to 'linear_head'."
        )
