"""Errors of checkpoints that are damaged, unreadable or of another model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from etils import epath

from paws_jax import errors
from paws_jax import text as text_lib
from paws_jax.runs import checkpoint_tree
from paws_jax.runs import full_disk
from paws_jax.runs import provenance

# In messages of errors that may pass: of a disk, a network or a server.
_TEMPORARY = (
  "Input/output error",
  "Stale file handle",
  "timed out",
  "DEADLINE_EXCEEDED",
  "UNAVAILABLE",
)

# Differing arrays named in an error; an entire model would fill the screen.
_LISTED = 8


class DamagedError(Exception):
  """Damage of one checkpoint; `Checkpointer` then reads the one before."""


def from_reading(
  directory: epath.Path, step: int, error: Exception
) -> Exception:
  """Converts an error of reading a checkpoint to the one to raise.

  Too little memory or a missing permission says nothing about the files, which
  must not be set aside for it.

  Args:
    directory: of the checkpoints.
    step: of the checkpoint.
    error: raised by orbax, TensorStore or the file system.
  """
  text = str(error)
  if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in text:
    return error
  if isinstance(error, PermissionError) or "PERMISSION_DENIED" in text:
    return errors.CheckpointError(
      f"checkpoint {step} in {directory} may not be read: {first_line(error)}"
    )
  if any(word in text for word in _TEMPORARY):
    return errors.CheckpointError(
      f"checkpoint {step} in {directory} cannot be read now: "
      f"{first_line(error)}. Try again; if the error remains, move this "
      "checkpoint away, and the run continues from the one before."
    )
  return DamagedError(first_line(error))


def check_fits(
  directory: epath.Path,
  stored: Mapping[str, Any],
  like: Any,
  *,
  item: str,
  version: str | None,
) -> None:
  """Refuses a checkpoint of another model or version, naming what differs.

  Args:
    directory: of the checkpoint.
    stored: description of the item's arrays, of `checkpoint_tree.describe`.
    like: tree to restore into.
    item: "state" or "extra".
    version: of paws_jax that wrote it; None: unknown.

  Raises:
    errors.CheckpointError: arrays or nodes of the tree differ.
  """
  name = f"checkpoint {directory.name} in {directory.parent}"
  problems = checkpoint_tree.differences(stored, like)
  if problems:
    more = text_lib.first_few(problems, most=_LISTED, separator="\n  ")
    raise errors.CheckpointError(
      f"{name} is of another model; {len(problems)} arrays differ:\n  {more}\n"
      "Use the recipe it was trained with, or another --workdir."
    )
  problems = checkpoint_tree.other_nodes(directory / item, like)
  if problems:
    raise errors.CheckpointError(
      f"{name} was written by paws_jax {version or 'of an unknown version'}, "
      "whose state has another tree than that of this version, "
      f"{provenance.version()}: "
      f"{text_lib.first_few(problems, most=_LISTED)}. Nothing in it is "
      "damaged: continue the run with the version that started it, or use "
      "another --workdir."
    )


def of_writing(error: Exception) -> str:
  """Formats an error of writing in one line; of a full disk, what to do."""
  words = full_disk.reason(error)
  if words is None:
    return first_line(error)
  return (
    f"{words}. {full_disk.REMEDY}: it continues from the last complete "
    "checkpoint."
  )


def log_none_twice() -> None:
  """Keeps orbax from logging the stack traces of errors that it raises, too."""
  # Adding the same filter again does nothing.
  logging.getLogger("absl").addFilter(_is_no_trace_of_orbax)


def _is_no_trace_of_orbax(record: logging.LogRecord) -> bool:
  return not (record.exc_info and "orbax" in record.pathname)


def first_line(error: Exception) -> str:
  """Formats type and message of an error in one line."""
  lines = str(error).splitlines()
  return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"
