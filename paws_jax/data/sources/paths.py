"""Paths of a recipe: relative to the current directory, once to data.dir."""

from __future__ import annotations

import dataclasses
import functools
import os
import sys
from typing import Any

from paws_jax import config as config_lib
from paws_jax.config import model as model_config


def resolve(field: str, path: str, *, data_dir: str) -> str:
  """Finds a path that a recipe gives.

  It is relative to the current directory, as paths are everywhere else. Where
  nothing is there, it is relative to `data_dir`, as in former versions: recipes
  of older runs stay valid. A line of warning names both places.

  Args:
    field: name of the field, for the warning.
    path: relative or absolute.
    data_dir: field `data.dir`; may be "".

  Returns:
    The path, which need not exist.
  """
  former = os.path.join(data_dir, path)
  if not path or former == path or not os.path.exists(former):
    return path
  here = os.path.abspath(path)
  former = os.path.abspath(former)
  if not os.path.exists(here):
    _warn(
      f"{field}: {here} does not exist, so {former} is used: give the path "
      "relative to the current directory, no longer to data.dir"
    )
    return former
  if not os.path.samefile(here, former):
    _warn(
      f"{field}: {here} is used and {former} is not: paths are relative to the "
      "current directory, no longer to data.dir"
    )
  return path


def absolute(recipe: config_lib.Recipe) -> config_lib.Recipe:
  """Makes the paths of a recipe absolute, so that it is valid from elsewhere.

  Empty ones and those of buckets stay as they are.
  """
  section = recipe.data.with_home()
  found = {
    name: resolve(f"data.{name}", getattr(section, name), data_dir=section.dir)
    for name in ("manifest", "unlabelled_dir", "test_dir")
  }
  found |= {"dir": section.dir, "labels_file": section.labels_file}
  paths: dict[str, Any] = {k: _absolute(path) for k, path in found.items()}
  init_from = recipe.model.init_from
  if init_from not in model_config.PRETRAINED:
    init_from = _absolute(init_from)
  holdout = _absolute(recipe.finetune.holdout_file)
  return dataclasses.replace(
    recipe,
    data=dataclasses.replace(section, **paths),
    model=dataclasses.replace(recipe.model, init_from=init_from),
    finetune=dataclasses.replace(recipe.finetune, holdout_file=holdout),
  )


def _absolute(path: str) -> str:
  if not path or "://" in path:
    return path
  return os.path.abspath(os.path.expanduser(path))


@functools.cache
def _warn(text: str) -> None:
  """Prints a warning once, however often the data is read."""
  print(f"warning: {text}", file=sys.stderr, flush=True)
