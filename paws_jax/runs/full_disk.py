"""Errors of a disk on which nothing more can be written, in one sentence."""

from __future__ import annotations

import errno
import os

# Of the system, also inside messages of libraries.
_REASONS = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)))
REMEDY = "Free space, and run the same command again"


def reason(error: BaseException) -> str | None:
  """Returns the system's words for a full disk; None for other errors."""
  text = str(error)
  return next((words for words in _REASONS if words in text), None)


def sentence(error: BaseException, place: str | os.PathLike[str]) -> str:
  """Formats an error of the file system for users.

  Args:
    error: what was raised.
    place: where the command writes, for errors that name no file.
  """
  words = reason(error)
  if words is None:
    return str(error)
  name = getattr(error, "filename", None) or place
  return f"{name} cannot be written: {words}. {REMEDY}."
