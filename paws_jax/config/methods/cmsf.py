"""Section `method` of CMSF."""

from __future__ import annotations

import dataclasses
import typing

from paws_jax import errors
from paws_jax.config import fields
from paws_jax.config.methods import msf

if typing.TYPE_CHECKING:
  from paws_jax.config import recipe as recipe_lib

CONSTRAINTS = ("none", "second_query", "kmeans", "labels", "pseudo_labels")


@dataclasses.dataclass(frozen=True)
class Config(msf.Config):
  """Fields of CMSF (2022), those of mean shift among them."""

  name: str = fields.field("cmsf")
  # Which rows of the bank an image may move to. "second_query": those whose
  # images were near to it an epoch before; "kmeans": those of its cluster;
  # "labels": those of its label; "pseudo_labels": the same, also of images that
  # a head is sure of. "none": all, which is plain mean shift.
  constraint: str = fields.field("kmeans", fields.one_of(*CONSTRAINTS))
  # Nearest rows that are averaged; 0: all of the label ("labels" only).
  k: int = fields.field(5, fields.between(0, 4096))
  # Of "second_query": rows that are near an epoch before, at least k.
  k_previous: int = fields.field(5, fields.between(1, 4096))
  # Of "kmeans": number of clusters; 0: one for 25.6 images.
  num_clusters: int = fields.field(0, fields.NOT_NEGATIVE)
  # Updates of the centroids after each epoch.
  cluster_iterations: int = fields.field(20, fields.between(1, 1000))
  # Of "pseudo_labels": an image gets the head's class where its probability is
  # at least this; above 1: no image does.
  threshold: float = fields.field(0.85, fields.NOT_NEGATIVE)
  # Rounds of training of the head in an epoch, at equal distances.
  rounds_per_epoch: int = fields.field(2, fields.between(1, 100))
  # Passes over the labelled images in a round.
  head_epochs: int = fields.field(10, fields.between(1, 1000))
  # Passes of a round after which its learning rate falls to a tenth.
  head_drops: tuple[int, ...] = fields.field(
    (15, 30, 40),
    ("numbers of at least 1", lambda x: all(1 <= v < 2**31 for v in x)),
  )
  # Labelled images of a step of the head; all where there are fewer.
  head_batch_size: int = fields.field(256, fields.between(2, 2**20))
  # Learning rate at the start of each round.
  head_lr: float = fields.field(0.01, fields.POSITIVE)

  def check(self) -> None:
    """Refuses numbers of rows that contradict the constraint."""
    if self.k == 0 and self.constraint != "labels":
      raise errors.InputError(
        f"method.k is 0 but method.constraint is {self.constraint!r}: only "
        "'labels' can average all rows; set k to at least 1."
      )
    if self.constraint == "second_query" and self.k > self.k_previous:
      raise errors.InputError(
        f"method.k is {self.k} but method.k_previous is {self.k_previous}: of "
        "so few rows k cannot be chosen; raise k_previous."
      )

  def check_recipe(self, recipe: recipe_lib.Recipe) -> None:
    """Refuses a bank without room for the rows that are searched."""
    super().check_recipe(recipe)
    searched = self.constraint == "second_query"
    if searched and self.k_previous > self.bank_size:
      raise errors.InputError(
        f"method.k_previous is {self.k_previous} but method.bank_size is "
        f"{self.bank_size}: there are not so many rows to choose from."
      )

  def check_length(
    self, *, batch_size: int, steps_per_epoch: int, total_steps: int
  ) -> None:
    """Refuses a constraint that would be known after the last step only."""
    del batch_size
    head = self.constraint == "pseudo_labels"
    if head and self.rounds_per_epoch > steps_per_epoch:
      raise errors.InputError(
        f"method.rounds_per_epoch is {self.rounds_per_epoch} but an epoch has "
        f"{steps_per_epoch} steps: lower it."
      )
    starts = 0
    if head:
      starts = steps_per_epoch // self.rounds_per_epoch
    elif self.constraint in ("second_query", "kmeans"):
      starts = steps_per_epoch
    if total_steps <= starts:
      raise errors.InputError(
        f"method.constraint is {self.constraint!r} but the run has "
        f"{total_steps} steps of {steps_per_epoch} an epoch: the constraint is "
        f"known after step {starts} only; train longer, or set it to 'none'."
      )
