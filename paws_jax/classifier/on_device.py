"""A classifier's encoder on the devices."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax import models
from paws_jax.classifier import image_list
from paws_jax.classifier import preprocessing as preprocessing_lib
from paws_jax.classifier import support_bank as support_bank_lib
from paws_jax.data import memory_pipeline
from paws_jax.evaluation import embed
from paws_jax.models import encoder
from paws_jax.parallel import mesh as mesh_lib

# What an image can become: what the classifier compares or its head reads; or
# the output of the trunk.
LAYERS = ("projection", "features")


class OnDevice:
  """Weights of an encoder on the devices, and its compiled programs.

  Attributes:
    mesh: all devices; images are spread over them.
  """

  def __init__(
    self,
    *,
    model: Mapping[str, Any],
    variables: Mapping[str, Any],
    preprocessing: preprocessing_lib.Preprocessing,
    has_head: bool,
  ):
    """Copies the weights to the devices.

    Args:
      model: section `model` of the recipe.
      variables: {"params", "batch_stats"} of the encoder.
      preprocessing: of its images.
      has_head: whether embeddings are the features under a fine-tuned head.
    """
    self.mesh = mesh_lib.make_mesh()
    self._model = model
    self._preprocessing = preprocessing
    last = encoder.head_features if has_head else embed.last_layer
    self._layers = dict(
      zip(LAYERS, (last, encoder.trunk_features), strict=True)
    )
    on_devices = mesh_lib.replicate(dict(variables), self.mesh)
    self._params = on_devices.pop("params")
    self._batch_stats = on_devices.pop("batch_stats")
    self._embedders: dict[tuple[int, str], Any] = {}

  def embed(
    self,
    batch: image_list.Batch,
    images: image_list.ImageList,
    size: int,
    layer: str = LAYERS[0],
  ) -> np.ndarray:
    """float32 [m, D]; raises NonFiniteError with names."""
    rows = self.embed_pixels(batch.pixels, size, layer)
    names = [images.name(place) for place in batch.places]
    support_bank_lib.check_finite(rows, names)
    return rows

  def embed_pixels(
    self, pixels: np.ndarray, size: int, layer: str = LAYERS[0]
  ) -> np.ndarray:
    """float32 [m, D] of uint8 [m, H, W, Ch], by a program of `size` rows."""
    if not len(pixels):
      # None of a batch could be read: a blank image gives the columns.
      blank = np.zeros((1, *self._preprocessing.shape), np.uint8)
      return self.embed_pixels(blank, size, layer)[:0]
    if layer not in self._layers:
      raise errors.InputError(
        f"there is no layer {layer!r}: choose {' or '.join(LAYERS)}."
      )
    key = size, layer
    if key not in self._embedders:
      self._embedders[key] = self._make_embedder(*key)
    return self._embedders[key](self._params, self._batch_stats, pixels)

  def _make_embedder(self, size: int, layer: str) -> Any:
    settings = self._preprocessing
    return embed.make_embedder(
      models.create(self._model),
      view=settings.on_device,
      batch_size=size,
      mesh=self.mesh,
      resize=functools.partial(
        memory_pipeline.resize, side=settings.image_size
      ),
      layers=self._layers[layer],
    )


def one_ahead(function: Any, batches: Iterator[Any]) -> Iterator[Any]:
  """Yields (batch, function(batch)), the next one computed meanwhile.

  In one thread: two that both start programs of several devices might start
  them in different orders on different devices, and wait indefinitely.
  """
  with concurrent.futures.ThreadPoolExecutor(1) as device:
    waiting = None
    for batch in batches:
      after = batch, device.submit(function, batch)
      if waiting is not None:
        yield waiting[0], waiting[1].result()
      waiting = after
    if waiting is not None:
      yield waiting[0], waiting[1].result()
