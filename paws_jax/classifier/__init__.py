"""A trained encoder with the labelled images that vote for the classes."""

from typing import TYPE_CHECKING

from paws_jax import _moved

if TYPE_CHECKING:
  from paws_jax.classifier.classifier import Classifier as Classifier
else:
  __getattr__ = _moved.names_of(__name__)
