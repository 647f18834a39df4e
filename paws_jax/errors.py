"""Errors that a user can do something about, under one base class."""

from __future__ import annotations

_REMEDY = 'Repair it, or set data.on_bad_image to "skip" to train without it'


class UserError(Exception):
  """Something a user can mend: a message in one form, no traceback.

  Attributes:
    status: exit status of the command: 2 for what was refused before anything
      was done, 1 for what another try may bring.
  """

  status = 2


class NonFiniteError(UserError, RuntimeError):
  """One of the metrics that must be finite is not."""

  status = 1


class CheckpointError(UserError, RuntimeError):
  """A checkpoint could not be written, or none could be read."""

  status = 1


class DistributedError(UserError, RuntimeError):
  """The processes of a run cannot work together."""

  status = 1


class DisagreementError(DistributedError):
  """Processes of a run were given different things."""

  status = 2


class WorkdirError(UserError, ValueError):
  """The directory cannot be used for this run."""


class ClassifierError(WorkdirError):
  """A directory holds no classifier, or one that is damaged."""


class WeightsError(UserError, ValueError):
  """A file of weights that cannot be used, or that must not be trusted."""


class BadImageError(UserError, ValueError):
  """An image that cannot be read; the message names it.

  Attributes:
    name: of the image.
    reason: why it cannot be read.
  """

  status = 1

  def __init__(self, name: str, reason: str, *, remedy: str = _REMEDY):
    """Makes the message, which ends with the remedy."""
    super().__init__(f"{name}: {reason}. {remedy}.")
    self.name, self.reason = name, reason
