"""The choice of the decoder of images on disk."""

from __future__ import annotations

from paws_jax import packages
from paws_jax.data.host import loader
from paws_jax.data.host import pillow_loader
from paws_jax.data.host import tensorflow_loader
from paws_jax.parallel import cpu_devices

# Pillow decodes more images per core, but on very many its threads may wait for
# Python's lock; docs/decisions.md.
_MOST_PILLOW_CORES = 8


def loader_class(decoder: str) -> type[loader.Loader]:
  """Returns the loader of a decoder; all give canvases of the same bits.

  Args:
    decoder: "tensorflow", "pillow", or "auto": the faster one.
  """
  if decoder == "auto":
    many = cpu_devices.num_cores() > _MOST_PILLOW_CORES
    installed = packages.is_installed("tensorflow")
    decoder = "tensorflow" if many and installed else "pillow"
  if decoder == "pillow":
    return pillow_loader.PillowLoader
  return tensorflow_loader.TensorFlowLoader
