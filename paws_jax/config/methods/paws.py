"""Section `method` of PAWS."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import support as support_lib
from paws_jax.config.methods import base

# How far the sum of a given prior may be from 1: its numbers may be rounded.
_PRIOR_TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class Config(base.Method):
  """Fields of PAWS (2021)."""

  soft_nn_title: ClassVar[str | None] = "PAWS-NN"

  name: str = fields.field("paws")
  # T of the targets and of the mean prediction: lower is sharper, 1 changes
  # nothing.
  sharpen_temperature: float = fields.field(0.25, fields.TEMPERATURE)
  # Maximize the entropy of the mean sharpened prediction, or draw it to another
  # prior than the uniform one.
  me_max: bool = fields.field(True)
  # Share of each class among unlabelled images, to which me_max draws the mean
  # prediction: "uniform", "labels" (as among the labelled images), "given"
  # (prior_probs) or "estimate": as a classifier of the labels alone predicts
  # them, and after each epoch the mean of that and of what the run itself
  # predicts. Those of a step's classes are scaled to a sum of 1.
  prior: str = fields.field(
    "uniform", fields.one_of("uniform", "labels", "given", "estimate")
  )
  # A number for each class of the data, in order, with prior = "given".
  prior_probs: tuple[float, ...] = fields.field(
    (), ("numbers greater than 0", lambda x: all(v > 0 for v in x))
  )
  # Weight of the cross-entropy of support labels, each predicted by the other
  # supports (the paper's appendix E); 0 leaves it out, as in the main recipe.
  support_loss_weight: float = fields.field(0.0, fields.NOT_NEGATIVE)
  # Weight of the mean entropy of predictions: instead of sharpening, that is
  # with sharpen_temperature = 1, or beside it (appendix E).
  entropy_loss_weight: float = fields.field(0.0, fields.NOT_NEGATIVE)
  # Report NT-Xent, SuNCEt, agreement of views, classes used, similarity to
  # supports and feature rank at every step; they train nothing.
  health_metrics: bool = fields.field(True)

  def check(self) -> None:
    """Refuses a prior that is not used, not given, or none."""
    if (self.prior == "given") != bool(self.prior_probs):
      raise errors.InputError(
        f"method.prior is {self.prior!r} but method.prior_probs has "
        f"{len(self.prior_probs)} numbers: 'given' needs one for each class, "
        "and only 'given' reads them."
      )
    if self.prior_probs and abs(sum(self.prior_probs) - 1) > _PRIOR_TOLERANCE:
      raise errors.InputError(
        f"method.prior_probs add up to {sum(self.prior_probs):g}: make them "
        "add up to 1."
      )

  def check_support(self, support: support_lib.Support) -> None:
    """Refuses a loss of support labels without others of the same class."""
    weight = self.support_loss_weight
    if weight:
      condition = f" with method.support_loss_weight = {weight:g}"
      base.check_pairs(support, self.name, condition)
