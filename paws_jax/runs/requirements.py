"""Packages that a recipe needs beyond those of every installation."""

from __future__ import annotations

from paws_jax import config as config_lib
from paws_jax import packages


def check(recipe: config_lib.Recipe) -> None:
  """Checks that the packages which a recipe needs are installed.

  Raises:
    MissingPackageError: one is not; says what to install.
  """
  if recipe.data.source == "tfds":
    packages.require("data.source='tfds'", "tensorflow", "tensorflow_datasets")
  if recipe.data.decoder == "tensorflow":
    packages.require("data.decoder='tensorflow'", "tensorflow")


def check_loggers(log: config_lib.Log) -> None:
  """Checks that the packages of `log.writers` are installed.

  Only training needs them: a finished run can be used without.

  Raises:
    MissingPackageError: one is not; says what to install.
  """
  for name in log.loggers:
    packages.require(f"{name} of log.writers", name)
