"""Sources of images: arrays, folders, manifests, idx files, TFDS."""

from typing import TYPE_CHECKING

from paws_jax import _moved

if not TYPE_CHECKING:
  __getattr__ = _moved.names_of(__name__)
