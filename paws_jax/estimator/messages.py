"""Rewrites errors of commands for Python: keywords in place of flags."""

from __future__ import annotations

import ast
import contextlib
import os
import re
from collections.abc import Iterator

from paws_jax import errors
from paws_jax.config import overrides
from paws_jax.runs import recipe as recipe_lib
from paws_jax.runs import workdir as workdir_lib

_FLAG = re.compile(r"--config\.([\w.]+)=('[^']*'|[^\s;]*[^\s,;:.)])")
# In messages, for what the user puts there.
_PLACEHOLDERS = ("DIR", "FILE", "RUN")
_FIELD = re.compile(r"\b[a-z]\w*(?:\.\w+)+")
_MOST_FIELDS = 4


@contextlib.contextmanager
def in_python(workdir: str | os.PathLike[str] | None) -> Iterator[None]:
  """Rewrites messages that name flags and fields.

  Args:
    workdir: of the fit.
  """
  try:
    yield
  except errors.UserError as error:
    error.args = (rewritten(str(error), workdir),)
    raise
  except workdir_lib.storage_errors() as error:
    if isinstance(error, OSError):
      raise
    reason = str(error).partition("\n")[0]
    raise errors.WorkdirError(
      f"workdir={os.fspath(workdir or '')!r} cannot be used ({reason}): check "
      "the bucket and your access to it, or give another directory."
    ) from error


def rewritten(message: str, workdir: str | os.PathLike[str] | None) -> str:
  """Returns a message about a command with what a program can do.

  Args:
    message: of an error.
    workdir: of the fit.
  """
  message, command, _ = message.partition(recipe_lib.CONTINUE)
  if command:
    message += (
      "To train on the data as they are now, from the weights of this run: "
      f"workdir=ANOTHER, model__init_from={os.fspath(workdir or '')!r}."
    )
  message = _FLAG.sub(_keyword, message)
  message = message.replace("--workdir", "workdir").replace(
    "--config=", "recipe="
  )
  message = re.sub(r"--config\b", "recipe=...", message)
  names = [n for n in _FIELD.findall(message) if overrides.is_field(n)]
  if not names:
    return message
  keywords = [_parameter(n) for n in dict.fromkeys(names)][:_MOST_FIELDS]
  return (
    f"{message.rstrip()} PawsClassifier takes fields as parameters: "
    f"{', '.join(f'{name}=...' for name in keywords)}"
  )


def _keyword(found: re.Match[str]) -> str:
  value = found[2].strip("'")
  try:
    ast.literal_eval(value)
  except (SyntaxError, ValueError):
    if value not in _PLACEHOLDERS:
      value = repr(value)
  return f"{_parameter(found[1])}={value}"


def _parameter(field: str) -> str:
  return field.replace(".", "__")
