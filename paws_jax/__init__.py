"""PAWS: semi-supervised learning with support samples, in JAX and Flax."""

from typing import TYPE_CHECKING

from paws_jax import _moved

__version__ = "0.2.0"

_moved.install()
if TYPE_CHECKING:
  from paws_jax.classifier.classifier import Classifier as Classifier
  from paws_jax.estimator.estimator import PawsClassifier as PawsClassifier
else:
  # Imported when they are first used.
  __getattr__ = _moved.names_of(__name__)
