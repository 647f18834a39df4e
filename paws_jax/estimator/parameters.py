"""Parameters of the estimator, and fields of its recipe among them."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import sklearn.base
import sklearn.utils

from paws_jax import errors
from paws_jax.config import overrides


class Parameters(sklearn.base.BaseEstimator):
  """An estimator with a recipe, whose fields are parameters, too."""

  def __init__(
    self,
    recipe: str | os.PathLike[str] = "image_folder:laptop",
    *,
    random_state: Any = None,
    workdir: str | os.PathLike[str] | None = None,
    verbose: bool = True,
    **fields: Any,
  ):
    """Keeps the parameters; reads nothing.

    Args:
      recipe: name or file of a recipe, as of --config.
      random_state: the seed of the run; None: that of the recipe, the same in
        each fit. A RandomState gives another one to each fit.
      workdir: directory of the run, kept, and continued by a fit to the same
        data; None: a temporary one, which is removed after the fit.
      verbose: whether to print the progress of training.
      **fields: of the recipe: `train__minutes=2`, or with a mapping
        `**{"train.minutes": 2}` or `train={"minutes": 2}`; None: the recipe's
        own value.

    Raises:
      UnknownFieldError: no recipe has such a field.
    """
    self.recipe = recipe
    self.random_state = random_state
    self.workdir = workdir
    self.verbose = verbose
    self._set_fields(fields)

  def _set_fields(self, fields: dict[str, Any]) -> None:
    for name, value in overrides.flatten(fields).items():
      if name == "seed":
        raise errors.UnknownFieldError(
          "the seed of a fit is the parameter random_state."
        )
      setattr(self, name.replace(".", "__"), value)

  def get_params(self, deep: bool = True) -> dict[str, Any]:
    """Returns the parameters, and the fields that have been set."""
    return super().get_params(deep=deep) | {
      name: value
      for name, value in vars(self).items()
      if "__" in name and not name.startswith("_")
    }

  def set_params(self, **params: Any) -> Parameters:
    """Sets parameters and fields of the recipe.

    Raises:
      InputError: there is no such parameter.
    """
    names = self._get_param_names()
    own = {name: params.pop(name) for name in names if name in params}
    try:
      self._set_fields(params)
    except errors.UnknownFieldError as error:
      # What scikit-learn raises is a ValueError.
      raise errors.InputError(str(error)) from None
    for name, value in own.items():
      setattr(self, name, value)
    return self

  def _fields(self) -> dict[str, Any]:
    """Fields of the recipe that have been set, by their names with dots."""
    own = self._get_param_names()
    return {
      name.replace("__", "."): value
      for name, value in self.get_params(deep=False).items()
      if name not in own and value is not None
    }

  def _seed(self) -> int | None:
    given = self.random_state
    if given is None or isinstance(given, (int, np.integer)):
      return None if given is None else int(given)
    state = sklearn.utils.check_random_state(given)
    return int(state.randint(2**31 - 1))

  def _stored(self) -> dict[str, Any]:
    """Parameters that a saved classifier keeps; see `restored`."""
    repeats = isinstance(self.random_state, (int, np.integer))
    fields = self._fields().items()
    return {
      "recipe": os.fspath(self.recipe),
      "random_state": int(self.random_state) if repeats else None,
      "fields": {name: overrides.plain(value) for name, value in fields},
    }


def restored(stored: dict[str, Any]) -> dict[str, Any]:
  """Arguments of `Parameters.__init__` of what has been stored."""
  names = ("recipe", "random_state")
  own = {name: stored[name] for name in names if name in stored}
  return own | stored.get("fields", {})
