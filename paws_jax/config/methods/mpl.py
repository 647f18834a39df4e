"""Section `method` of Meta Pseudo Labels."""

from __future__ import annotations

import dataclasses
import typing

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config.methods import class_head

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib


@dataclasses.dataclass(frozen=True)
class Config(class_head.Unlabelled):
  """Fields of Meta Pseudo Labels (2021).

  Section `optim` is that of the teacher, `support.label_smoothing` of both.
  """

  name: str = fields.field("mpl")
  # Weight of the old value in the average of the student, which is evaluated.
  ema_decay: float = fields.field(0.995, fields.FRACTION)
  # The student's running statistics are averaged, too, not copied.
  ema_statistics: bool = fields.field(True)
  # Weight of the teacher's loss of unlabelled images, that of UDA.
  unlabelled_weight: float = fields.field(8.0, fields.NOT_NEGATIVE)
  # Share of the run in which that weight rises from 0, linearly.
  ramp_share: float = fields.field(0.017, fields.PROBABILITY)
  # Divides the teacher's logits of weak views in its targets.
  target_temperature: float = fields.field(0.7, fields.TEMPERATURE)
  # An unlabelled image counts where a class of its weak view has at least this
  # probability.
  threshold: float = fields.field(0.6, class_head.THRESHOLD)
  # That probability is taken with ("sharpened") or without ("raw") the
  # temperature.
  mask_on: str = fields.field("sharpened", fields.one_of("raw", "sharpened"))
  # What the teacher hears of the student: "difference": how far the loss of
  # labelled images falls in the student's step; "dot": its first order, the
  # product of the two gradients times the student's rate; "cosine" of the two;
  # "off": nothing, as in the published code, where the term has no gradient.
  feedback: str = fields.field(
    "difference", fields.one_of("difference", "dot", "cosine", "off")
  )
  # Of "difference": the loss before the step is that of the labelled images
  # "alone", as after it, or in one BatchNorm batch with the strong views
  # ("joint"), as in public code.
  old_loss_batch: str = fields.field("alone", fields.one_of("alone", "joint"))
  # Weight of the old value in the mean of the feedback, which is subtracted.
  baseline_decay: float = fields.field(0.99, fields.FRACTION)
  # Learning rate of the student, by SGD with Nesterov momentum, after its
  # warm-up; it falls to 0 along a cosine.
  student_lr: float = fields.field(0.05, fields.POSITIVE)
  # Acts on the student's kernels.
  student_weight_decay: float = fields.field(5e-4, fields.NOT_NEGATIVE)
  # Of the student.
  student_momentum: float = fields.field(0.9, fields.FRACTION)
  # Share of the run in which the student does not learn.
  student_wait_share: float = fields.field(0.01, fields.FRACTION)
  # Share of the run after that in which its rate rises.
  student_warmup_share: float = fields.field(0.017, fields.FRACTION)

  def check(self) -> None:
    """Refuses a student that would never learn at its rate."""
    if self.student_wait_share + self.student_warmup_share >= 1:
      raise errors.InputError(
        f"method.student_wait_share is {self.student_wait_share:g} and "
        f"method.student_warmup_share is {self.student_warmup_share:g}: "
        "together they must be less than 1."
      )

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Refuses also a trunk that the student's optimizer would change."""
    super().check_recipe(recipe)
    if recipe.model.trunk == "frozen":
      raise errors.InputError(
        f"model.trunk is 'frozen' but method.name is {self.name!r}, whose "
        "student has an optimizer of its own that trains all weights: set "
        "model.trunk to 'train', or take another method, such as 'fixmatch'."
      )
