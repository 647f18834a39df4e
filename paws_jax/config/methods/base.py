"""Fields that every method has, and the hooks of their sections."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any
from typing import ClassVar

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config import support as support_lib

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib


@dataclasses.dataclass(frozen=True)
class Method(fields.Section):
  """Section `method` of a recipe.

  Attributes:
    soft_nn_title: what tables call the vote of labelled images; None: the name
      of the method, and "soft NN".
    allows_bn_groups: whether `train.bn_groups` may cut a step into groups: the
      rows of every BatchNorm batch are views of its unlabelled images, in
      their order.
    allows_chunks: whether `train.chunks` may encode them run by run.
    class_head: whether a linear layer on the trunk is trained to classify, so
      that there is no projection head.
  """

  soft_nn_title: ClassVar[str | None] = None
  allows_bn_groups: ClassVar[bool] = False
  allows_chunks: ClassVar[bool] = True
  class_head: ClassVar[bool] = False

  # One of config.methods.METHODS (docs/methods.md says which when).
  name: str
  # Divides cosine similarities, also in evaluation by soft nearest neighbours.
  temperature: float = fields.field(0.1, fields.TEMPERATURE)

  @property
  def in_domain_temperature(self) -> float | None:
    """Temperature of the probability that an image is of a known class.

    None for a method to which every image is; others have it as a field.
    """
    return None

  def check_support(self, support: support_lib.Support) -> None:
    """Checks the section against the labelled images of a step.

    Raises:
      InputError: naming the fields, their values, and what to change.
    """

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Checks the section against others than `support`.

    Raises:
      InputError: naming the fields, their values, and what to change.
    """

  def check_step(self, support: support_lib.Support, batch_size: int) -> None:
    """Checks the section against the images of a step of known classes.

    Args:
      support: with all classes in place of 0 classes per step.
      batch_size: unlabelled images of a step.

    Raises:
      InputError: naming the fields, their values, and what to change.
    """

  def check_length(
    self, *, batch_size: int, steps_per_epoch: int, total_steps: int
  ) -> None:
    """Checks the section against the length of a new run, once it is known.

    Args:
      batch_size: unlabelled images of a step.
      steps_per_epoch: steps of an epoch.
      total_steps: of the run.

    Raises:
      InputError: naming the fields, their values, and what to change.
    """

  def in_steps(self, steps_per_epoch: int) -> Method:
    """Returns the section with its numbers of epochs as numbers of steps."""
    del steps_per_epoch
    return self


def check_pairs(
  support: support_lib.Support,
  name: str,
  condition: str = "",
  *,
  field: str = "method.name",
  remedy: str = "raise images_per_class",
) -> None:
  """Refuses supports of which each is the only one of its class.

  Args:
    support: section `support`.
    name: of a method in which supports are predicted by other supports.
    condition: what in the recipe makes it so, for the message.
    field: of the recipe that holds the name.
    remedy: for the message.
  """
  if support.images_per_class * support.num_views < 2:
    raise errors.InputError(
      f"support.images_per_class is {support.images_per_class} and "
      f"support.num_views {support.num_views}, but {field} is {name!r}"
      f"{condition}: a support is then predicted by the others of its class, "
      f"of which there must be at least 2; {remedy}."
    )


def check_end_of_labels(section: Any) -> None:
  """Refuses two ends of the term of the labels.

  Args:
    section: with fields `supervised_until` and `supervised_until_epochs`.
  """
  if section.supervised_until and section.supervised_until_epochs:
    raise errors.InputError(
      f"method.supervised_until is {section.supervised_until} and "
      f"method.supervised_until_epochs is {section.supervised_until_epochs:g}, "
      "but labels stop to count once: set one of them to 0."
    )


def end_of_labels_in_steps(section: Any, steps_per_epoch: int) -> Any:
  """Returns a section with `supervised_until_epochs` as a number of steps."""
  if not section.supervised_until_epochs:
    return section
  steps = round(section.supervised_until_epochs * steps_per_epoch)
  # At least one: no steps would mean all of them.
  steps = min(max(1, steps), fields.LARGEST_INTEGER)
  return dataclasses.replace(
    section, supervised_until=steps, supervised_until_epochs=0.0
  )
