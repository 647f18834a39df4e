"""Errors that a user can do something about, under one base class."""

from __future__ import annotations

_REMEDY = 'Repair it, or set data.on_bad_image to "skip" to train without it'


class UserError(Exception):
  """An error that a command reports in one line, without a traceback.

  Attributes:
    status: exit status of a command that is refused for it before anything was
      done: 2 where the input must change, 1 where another try may succeed.
  """

  status = 2

  def __str__(self) -> str:
    """Returns the message; an ImportError would return that of its making."""
    return str(self.args[0]) if self.args else ""


class InputError(UserError, ValueError):
  """A field of a recipe, a flag, a file or data that cannot be used."""


class UnknownFieldError(UserError, TypeError):
  """A field that a section of a recipe does not have."""


class MissingFileError(UserError, FileNotFoundError):
  """A file or directory of the user that does not exist."""


class MissingPackageError(UserError, ImportError):
  """A package that is not installed and that a recipe or task needs."""


class NonFiniteError(UserError, RuntimeError):
  """A metric that must be finite is infinite or not a number."""

  status = 1


class CheckpointError(UserError, RuntimeError):
  """A checkpoint that could not be written, or none that could be read."""

  status = 1


class DistributedError(UserError, RuntimeError):
  """A failure of the connection between the processes of a run."""

  status = 1


class DisagreementError(DistributedError):
  """A difference between the recipes, flags or versions of the processes."""

  status = 2


class WorkdirError(UserError, ValueError):
  """A directory that cannot be used for this run."""


class ClassifierError(WorkdirError):
  """A directory without a classifier, or with a damaged one."""


class WeightsError(UserError, ValueError):
  """A file of weights that cannot be used or must not be trusted."""


class BadImageError(UserError, ValueError):
  """An image that cannot be read; the message names it.

  Attributes:
    name: name of the image.
    reason: why it cannot be read.
  """

  def __init__(self, name: str, reason: str, *, remedy: str = _REMEDY):
    """Makes the message, which ends with the remedy."""
    super().__init__(f"{name}: {reason}. {remedy}.")
    self.name, self.reason = name, reason
