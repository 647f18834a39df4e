"""Section `support` of a recipe."""

from __future__ import annotations

import dataclasses

from paws_jax import errors
from paws_jax.config import fields


@dataclasses.dataclass(frozen=True)
class Support(fields.Section):
  """The labelled images of a step."""

  # Distinct classes drawn in a step; 0: all that the data has.
  classes_per_step: int = fields.field(
    960, ("0 (all classes) or at least 2", lambda x: x == 0 or x >= 2)
  )
  # Labelled images of each class in a step.
  images_per_class: int = fields.field(7, fields.between(1, 2**16))
  # Differently augmented views of each drawn image.
  num_views: int = fields.field(1, fields.between(1, 1000))
  # Share of a support's label that is spread over all classes.
  label_smoothing: float = fields.field(0.1, fields.FRACTION)
  # Lets a class with n < images_per_class labelled images stand in with each
  # of them floor or ceil(images_per_class / n) times, differently augmented;
  # of "uniform", lets a step have more labelled images than there are.
  with_replacement: bool = fields.field(False)
  # "balanced": as many labelled images of each of a step's classes. "uniform":
  # the next `batch_size` of all labelled images in random order, each of them
  # once an epoch; the columns of predictions are then all classes.
  sampling: str = fields.field("balanced", fields.one_of("balanced", "uniform"))
  # Of "uniform": labelled images a step; 0: classes_per_step x
  # images_per_class.
  batch_size: int = fields.field(0, fields.NOT_NEGATIVE)

  @property
  def num_images(self) -> int:
    """Labelled images a step, where classes_per_step is not 0."""
    return self.batch_size or self.classes_per_step * self.images_per_class

  @property
  def size_field(self) -> str:
    """Name of the field that decides how many labelled images a step has."""
    return "batch_size" if self.batch_size else "images_per_class"

  def check(self) -> None:
    """Refuses a number of labelled images that nothing reads."""
    if self.batch_size and self.sampling != "uniform":
      raise errors.InputError(
        f"support.batch_size is {self.batch_size} but support.sampling is "
        f"{self.sampling!r}, which draws classes_per_step x images_per_class "
        "labelled images: set batch_size to 0, or sampling to 'uniform'."
      )

  def for_classes(self, num_classes: int, dataset_name: str) -> Support:
    """Returns the section with all classes in place of 0 classes per step.

    Args:
      num_classes: of the data set.
      dataset_name: for the message.

    Raises:
      InputError: there are fewer than two classes.
    """
    if num_classes < 2:
      raise errors.InputError(
        f"{dataset_name} has {num_classes} class: a soft label needs at least "
        "2."
      )
    if self.classes_per_step:
      return self
    return dataclasses.replace(self, classes_per_step=num_classes)
