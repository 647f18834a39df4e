"""Parses command lines with a recipe, `--config`."""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.config import methods
from paws_jax.config import overrides
from paws_jax.config import recipe_files
from paws_jax.config import views

_METHOD = "config.method"
# Messages about a text of another kind than the field, and what is wanted.
_WANTED = {
  r"invalid literal for int\(\)": "an integer",
  "could not convert string to float": "a number",
  r"Failed to parse .* as a ConfigDict": (
    "followed by a field of that section, as --config.train.epochs=3"
  ),
}
# The end of the name of a recipe that a run has stored.
_STORED = ".json"


class RecipeParser(flags.ArgumentParser[Any]):
  """Loads a recipe with the fields of the method that the command line names.

  ml_collections makes a flag of each field that stands on the command line,
  once the recipe is loaded. So section `method` must be that of
  `--config.method.name` by then.
  """

  def __init__(self, loader: flags.ArgumentParser[Any]):
    """Wraps the parser of a flag of `config_flags.DEFINE_config_file`."""
    self._loader = loader

  def parse(self, argument: str) -> Any:
    """Loads a recipe with the overrides of the command line.

    Raises:
      InputError: an unknown method, or a field on the command line that the
        method does not have.
    """
    if argument.endswith(_STORED):
      config = _stored(argument)
    else:
      config = self._loader.parse(recipe_files.locate(argument))
    # A file that cannot be read is reported later.
    if not isinstance(config, ml_collections.ConfigDict):
      return config
    section = config.method
    argv = flags.FLAGS.read_flags_from_files(sys.argv, force_gnu=False)
    name = flag_value(argv, f"{_METHOD}.name") or section.name
    values, dropped = methods.rebuild(section, name)
    if dropped:
      print(methods.dropped_line(name, dropped), file=sys.stderr)
    for argument in argv:
      found = re.match(rf"--?(?:no)?{_METHOD}\.(\w+)", argument)
      if found and found[1] not in values:
        raise errors.UnknownFieldError(methods.unknown_field(name, found[1]))
    with config.unlocked():
      config.method = methods.MethodDict(values)
    if flag_value(argv, "config.train.chunks") == "auto":
      # So that the flag takes a word.
      with config.ignore_type():
        config.train.chunks = "auto"
    given = {
      name: flag_value(argv, f"config.train.{name}")
      for name in overrides.LENGTHS
    }
    for name, other in (overrides.LENGTHS, overrides.LENGTHS[::-1]):
      if _is_a_length(given[name]) and given[other] is None:
        config.train[other] = type(config.train[other])(0)
    return config


def _is_a_length(text: str | None) -> bool:
  """Whether a text is a number other than 0; others are refused later."""
  try:
    return bool(float(text or 0))
  except ValueError:
    return False


def follow_method(flag: flags.Flag[Any]) -> None:
  """Makes section `method` of a recipe follow `--config.method.name`.

  Args:
    flag: `config`, of `config_flags.DEFINE_config_file`.
  """
  flag.parser = RecipeParser(flag.parser)


def parse(argv: Sequence[str]) -> list[str]:
  """Parses all flags that are defined, among them `config` and its fields.

  Args:
    argv: the program and its arguments.

  Returns:
    The arguments that are no flags.

  Raises:
    errors.InputError: the command line is wrong; its message is one line.
  """
  recipe = flag_value(argv, "config") or ""
  if recipe:
    _check_found(recipe)
  try:
    rest = flags.FLAGS(argv)
    # ml_collections delays the error of a missing file until this is used.
    config = flags.FLAGS["config"].value
    _ = config is None or config.keys
  except flags.Error as error:
    message = str(error)
    if "Traceback" in message:
      # An error in the recipe, such as an unknown variant.
      message = f"--config={recipe}: {_reason(message)}"
    elif isinstance(error.__context__, errors.UserError):
      message = str(error.__context__)
    for start, wanted in _WANTED.items():
      message = re.sub(rf"{start}.*", f"it must be {wanted}", message)
    raise errors.InputError(message) from error
  except OSError as error:
    raise errors.InputError(
      f"--config={recipe} cannot be read: {error}"
    ) from error
  except (AttributeError, KeyError) as error:
    message = f"a recipe has no such field: {_no_field(error)}"
    raise errors.InputError(message) from error
  notice = views.notice(config)
  if notice:
    print(notice, file=sys.stderr)
  return rest


def _reason(traceback: str) -> str:
  """The last line of a traceback of a recipe, as a message."""
  line = traceback.splitlines()[-1]
  if re.search(r"get_config\(\) takes 0 positional arguments", line):
    return recipe_files.NO_VARIANTS
  return re.sub(r"^(ValueError|paws_jax\.errors\.\w+): ", "", line)


def _check_found(recipe: str) -> None:
  """Refuses a recipe that is not there; that of a bucket is read later."""
  if not recipe.endswith(_STORED):
    recipe_files.locate(recipe)
  elif "://" not in recipe and not os.path.isfile(os.path.expanduser(recipe)):
    raise errors.InputError(f"--config={recipe}: there is no such file")


def _stored(path: str) -> ml_collections.ConfigDict:
  """Reads the recipe that a run has stored.

  Raises:
    UserError: it cannot be read, or has fields of another version.
  """
  from paws_jax.runs import files
  from paws_jax.runs import recipe as recipe_lib

  recipe = recipe_lib.read(files.resolve(path))
  if recipe is None:
    raise errors.MissingFileError(f"--config={path}: there is no such file")
  return config_lib.editable(recipe).lock()


def flag_value(argv: Sequence[str], flag: str) -> str | None:
  """Finds the last value of a flag on a command line; None: not given."""
  value = None
  for argument, following in zip(argv, [*argv[1:], ""], strict=True):
    found = re.fullmatch(rf"--?{flag}(?:=(.*))?", argument)
    if found:
      value = following if found[1] is None else found[1]
  return value


def _no_field(error: AttributeError | KeyError) -> str:
  """Formats the message of ml_collections on an unknown field in one line.

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
  message = " ".join(message.split())
  similar = re.fullmatch(
    r"('.*?') Did you mean \"(.*)\" instead of .*", message
  )
  return f"{similar[1]}: did you mean '{similar[2]}'?" if similar else message
