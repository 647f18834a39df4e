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
  if recipe.log.tensorboard:
    packages.require("log.tensorboard", "tensorflow", "clu")
