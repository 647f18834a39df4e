"""Parses command lines with a recipe, `--config`, and says what is wrong."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Sequence

from absl import flags

from paws_jax import errors


def parse(argv: Sequence[str]) -> list[str]:
  """Parses all flags that are defined, among them `config` and its fields.

  Args:
    argv: the program and its arguments.

  Returns:
    What is left of the arguments.

  Raises:
    ValueError: the command line is wrong; its message is one line.
  """
  recipe = given(argv, "config") or ""
  if recipe and not pathlib.Path(recipe.partition(":")[0]).is_file():
    raise errors.InputError(f"--config={recipe}: there is no such file")
  try:
    rest = flags.FLAGS(argv)
    # ml_collections puts the error of a missing file off until this is used.
    config = flags.FLAGS["config"].value
    _ = config is None or config.keys
  except flags.Error as error:
    # Of an error in a recipe, such as an unknown variant, a whole traceback.
    last = str(error).splitlines()[-1]
    short = "Traceback" in str(error)
    message = f"--config={recipe}: {last}" if short else str(error)
    raise errors.InputError(message) from error
  except OSError as error:
    raise errors.InputError(
      f"--config={recipe} cannot be read: {error}"
    ) from error
  except (AttributeError, KeyError) as error:
    message = f"a recipe has no such field: {_no_field(error)}"
    raise errors.InputError(message) from error
  return rest


def given(argv: Sequence[str], flag: str) -> str | None:
  """What a flag is given on a command line, at last; None: nothing."""
  value = None
  for argument, following in zip(argv, [*argv[1:], ""], strict=True):
    found = re.fullmatch(rf"--?{flag}(?:=(.*))?", argument)
    if found:
      value = following if found[1] is None else found[1]
  return value


def _no_field(error: AttributeError | KeyError) -> str:
  """What ml_collections says of a field that does not exist, in one line.

  Raises:
    AttributeError, KeyError: `error`, when it is about something else.
  """
  # It wraps "'epoch'\nDid you mean ..." into a KeyError, which quotes it again.
  try:
    message = ast.literal_eval(str(error))
  except (SyntaxError, ValueError):
    raise error from None
  if not message.startswith("'"):
    raise error
  return " ".join(message.split())
