"""Sizes of a linear protocol for a run, and what it cannot be used on."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import text
from paws_jax.data import dataset as dataset_lib
from paws_jax.data import labelled_pipeline
from paws_jax.evaluation import linear_protocols
from paws_jax.training import restore

# Fields of the recipe, for messages.
BATCH_SIZE = "eval.linear_batch_size"
LEARNING_RATE = "eval.linear_learning_rate"


@dataclasses.dataclass(frozen=True)
class LinearSettings:
  """The sizes and the rate of a protocol on the labelled images of a run.

  Attributes:
    name: of the protocol.
    wanted: images of a step, as the recipe or the protocol has it.
    batch_size: the same, or all images where there are fewer.
    epochs: passes over the images.
    learning_rate: of the first step.
  """

  name: str
  wanted: int
  batch_size: int
  epochs: int
  learning_rate: float

  @property
  def protocol(self) -> linear_protocols.LinearProtocol:
    """The constants."""
    return linear_protocols.PROTOCOLS[self.name]

  def as_row(self, section: config_lib.Finetune) -> dict[str, Any]:
    """Fields of the result row."""
    fields = {"embedding": "trunk", "batch_size": self.batch_size}
    if self.batch_size < self.wanted:
      fields["batch_size_wanted"] = self.wanted
    return fields | {
      "epochs": self.epochs,
      "learning_rate": self.learning_rate,
      "crop_scale": section.crop_scale,
      "aspect_ratio": section.aspect_ratio,
    }


def choose(
  name: str, section: config_lib.Eval, num_images: int
) -> LinearSettings:
  """Chooses sizes and rate: those of section `eval`, or of the protocol.

  Args:
    name: of a protocol.
    section: the recipe's `eval`.
    num_images: labelled images that are trained on.
  """
  protocol = linear_protocols.PROTOCOLS[name]
  wanted = section.linear_batch_size or protocol.batch_size
  batch_size = min(wanted, num_images)
  return LinearSettings(
    name=name,
    wanted=wanted,
    batch_size=batch_size,
    epochs=section.linear_epochs or protocol.epochs,
    learning_rate=(
      section.linear_learning_rate or protocol.learning_rate(batch_size)
    ),
  )


def check(trained: restore.TrainedRun, name: str) -> None:
  """Refuses data on which the protocol cannot be trained or measured.

  Args:
    trained: the run.
    name: of a protocol.

  Raises:
    errors.InputError: no test images, a class without a labelled image, or
      devices that do not divide a batch.
  """
  dataset = trained.experiment.dataset
  if dataset.test is None and dataset.validation is None:
    raise errors.InputError(
      f"{dataset.name} has no test or validation images, on which "
      f"--protocol={name} is measured: give test images (data.test_dir, or "
      "split = test in the manifest)."
    )
  part = dataset.labelled
  check_classes(dataset, name, part.labels)
  labelled_pipeline.check_batch(
    choose(name, trained.recipe.eval, len(part)).wanted,
    num_images=len(part),
    mesh=trained.experiment.trainer.mesh,
    field=BATCH_SIZE,
  )


def check_classes(
  dataset: dataset_lib.Dataset, name: str, labels: np.ndarray
) -> None:
  """Refuses a class without a labelled image.

  Raises:
    errors.InputError: naming the classes.
  """
  counts = np.bincount(labels, minlength=dataset.num_classes)
  missing = [dataset.class_names[i] for i in np.flatnonzero(counts == 0)]
  if missing:
    raise errors.InputError(
      f"{text.count(len(labels), 'labelled image')} of {dataset.num_classes} "
      f"classes, none of {text.first_few(missing)}: --protocol={name} cannot "
      "learn a class without a labelled image that can be read. Label at least "
      "one image of each class."
    )
