"""Section `train` of a recipe."""

from __future__ import annotations

import dataclasses
from typing import Any

from paws_jax import errors
from paws_jax.config import fields

_EPOCHS = "at least 1, or 0 where train.minutes takes its place"


@dataclasses.dataclass(frozen=True)
class Train(fields.Section):
  """Length of training, and how a step is computed."""

  # Unlabelled images a step; steps per epoch = floor(images / batch_size).
  batch_size: int = fields.field(4096, fields.AT_LEAST_ONE)
  # Passes over the training set; 0 with `minutes`.
  epochs: int = fields.field(100, (_EPOCHS, lambda x: x >= 0))
  # Minutes of training, instead of epochs: when a run starts, a few steps are
  # timed, and the schedule is laid out for the epochs that fit. 0: epochs
  # decide. On the command line this field alone is enough; a recipe sets the
  # other one to 0.
  minutes: float = fields.field(0.0, fields.NOT_NEGATIVE)
  # Steps in one call of the compiled program (a lax.scan over them).
  steps_per_call: int = fields.field(1, fields.AT_LEAST_ONE)
  # Recompute activations in the backward pass to save memory: "none", "dots"
  # (keep convolutions and matrix products) or "all".
  remat: str = fields.field("none", fields.one_of("none", "dots", "all"))
  # Devices that share BatchNorm statistics. 0: all, whatever their number;
  # anything else makes results depend on the number of devices.
  bn_group_size: int = fields.field(0, fields.NOT_NEGATIVE)
  # Equal runs of a step's images with BatchNorm statistics of their own,
  # whatever the number of devices. 1: no groups.
  bn_groups: int = fields.field(1, fields.AT_LEAST_ONE)

  # Runs of a device's supports and images that are encoded one by one, so that
  # a step needs the memory of one; each has BatchNorm statistics of its own, as
  # a device with train.bn_group_size=1. Costs a third more arithmetic. 0, or
  # "auto" on the command line: the smallest number that fits the memory of the
  # devices.
  chunks: int = fields.field(1, ("at least 1, or 'auto'", lambda x: x >= 0))

  def __post_init__(self) -> None:
    """Takes the word for the number."""
    super().__post_init__()
    given: Any = self.chunks
    if given == "auto":
      object.__setattr__(self, "chunks", 0)

  @property
  def known_chunks(self) -> int:
    """The number of chunks.

    Raises:
      InputError: it is yet to be found.
    """
    if not self.chunks:
      raise errors.InputError(
        "train.chunks is 'auto', which stands for a number that training and "
        "--task=plan find: give one."
      )
    return self.chunks

  @property
  def bn_fields(self) -> dict[str, int]:
    """The fields that decide which images share BatchNorm statistics."""
    return {"bn_group_size": self.bn_group_size, "bn_groups": self.bn_groups}

  def check(self) -> None:
    """Refuses two lengths of a run, and none, and two ways to form groups."""
    if self.bn_groups > 1 and self.bn_group_size:
      raise errors.InputError(
        f"train.bn_groups is {self.bn_groups} and train.bn_group_size is "
        f"{self.bn_group_size}: each decides which images share BatchNorm "
        "statistics; set bn_groups to 1 or bn_group_size to 0."
      )
    if self.batch_size % self.bn_groups:
      raise errors.InputError(
        f"train.bn_groups is {self.bn_groups}, which does not divide "
        f"train.batch_size, {self.batch_size}."
      )
    if self.chunks and self.batch_size % self.chunks:
      raise errors.InputError(
        f"train.chunks is {self.chunks}, which does not divide "
        f"train.batch_size, {self.batch_size}: unlabelled images cannot be "
        "padded, only supports. Choose a divisor."
      )
    if self.epochs and self.minutes:
      raise errors.InputError(
        f"train.epochs is {self.epochs} and train.minutes is "
        f"{self.minutes:g}: each decides how long a run is; set one of them to "
        "0."
      )
    if not self.epochs and not self.minutes:
      raise errors.InputError(f"train.epochs is 0: it must be {_EPOCHS}.")
