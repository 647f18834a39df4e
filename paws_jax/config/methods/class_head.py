"""Fields of the methods that train a classifier on the trunk."""

from __future__ import annotations

import dataclasses
import typing
from typing import ClassVar

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import support as support_lib
from paws_jax.config.methods import base

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib

THRESHOLD: fields.Rule = (
  "greater than 0 and at most 1",
  lambda x: 0 < x <= 1,
)


@dataclasses.dataclass(frozen=True)
class ClassHead(base.Method):
  """Section `method` of a method with a class head.

  Attributes:
    per_labelled: whether unlabelled images come as multiples of the labelled
      ones of a step.
  """

  class_head: ClassVar[bool] = True
  # Of images that are mixed with each other, or read in several steps in one.
  allows_chunks: ClassVar[bool] = False
  per_labelled: ClassVar[bool] = True

  # Weight of the old value in the average of the weights, which is evaluated.
  ema_decay: float = fields.field(0.999, fields.FRACTION)
  # The average begins as the plain mean of the weights so far.
  ema_warmup: bool = fields.field(False)
  # The running statistics of BatchNorm are averaged, too, not copied.
  ema_statistics: bool = fields.field(False)

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Checks a step whose number of labelled images is in the recipe."""
    if recipe.support.batch_size:
      self.check_step(recipe.support, recipe.train.batch_size)

  def check_step(self, support: support_lib.Support, batch_size: int) -> None:
    """Refuses labelled images that do not divide the unlabelled ones."""
    labelled = support.num_images
    if not self.per_labelled or not batch_size % labelled:
      return
    given = "support.batch_size"
    if not support.batch_size:
      given = "support.classes_per_step x support.images_per_class"
    raise errors.InputError(
      f"train.batch_size is {batch_size} but a step has {labelled} labelled "
      f"images ({given}), of which method {self.name!r} takes a multiple as "
      f"unlabelled images: set train.batch_size to a multiple of {labelled}, "
      f"such as {7 * labelled}."
    )


@dataclasses.dataclass(frozen=True)
class Unlabelled(ClassHead):
  """Section `method` of one that also learns from unlabelled images."""

  # Weight of the loss of unlabelled images.
  unlabelled_weight: float = fields.field(1.0, fields.NOT_NEGATIVE)
  # Share of the run in which that weight rises from 0, linearly; 0: not at all.
  ramp_share: float = fields.field(0.0, fields.PROBABILITY)
