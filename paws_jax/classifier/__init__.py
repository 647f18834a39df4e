"""A trained encoder with the labelled images that vote for the classes."""

from paws_jax import _moved

__getattr__ = _moved.names_of(__name__)
