"""PAWS: semi-supervised learning with support samples, in JAX and Flax."""

from paws_jax import _moved

__version__ = "0.2.0"

_moved.install()
# `paws_jax.Classifier` and `PawsClassifier`, imported when they are first used.
__getattr__ = _moved.names_of(__name__)
