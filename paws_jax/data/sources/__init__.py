"""Sources of images: arrays, folders, manifests, idx files, TFDS."""

from paws_jax import _moved

__getattr__ = _moved.names_of(__name__)
