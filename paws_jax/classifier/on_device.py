"""A classifier's encoder and bank on the devices."""

from __future__ import annotations

import concurrent.futures
import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from paws_jax import models
from paws_jax.classifier import image_list
from paws_jax.classifier import support_bank
from paws_jax.classifier import vote
from paws_jax.data import memory_pipeline
from paws_jax.evaluation import embed
from paws_jax.models import encoder
from paws_jax.parallel import mesh

if TYPE_CHECKING:
  from paws_jax.classifier import classifier as classifier_lib


class OnDevice:
  """Weights and bank of a classifier on the devices, and compiled programs."""

  def __init__(self, classifier: classifier_lib.Classifier):
    self._classifier = classifier
    self._mesh = mesh.make_mesh()
    variables = mesh.replicate(dict(classifier.variables), self._mesh)
    self._params = variables.pop("params")
    self._model_state = variables
    self._embedders: dict[int, Any] = {}

  @functools.cached_property
  def vote(self) -> Any:
    """See `voting.make_voter`."""
    classifier = self._classifier
    return vote.make_voter(
      classifier.bank,
      num_classes=classifier.num_classes,
      temperature=classifier.temperature,
      head=classifier.head,
      in_domain_temperature=classifier.in_domain_temperature,
      mesh=self._mesh,
    )

  def embed(
    self, batch: image_list.Batch, images: image_list.ImageList, size: int
  ) -> np.ndarray:
    """float32 [m, D]; raises NonFiniteError with names."""
    rows = self.embed_pixels(batch.pixels, size)
    names = [images.name(place) for place in batch.places]
    support_bank.check_finite(rows, names)
    return rows

  def embed_pixels(self, pixels: np.ndarray, size: int) -> np.ndarray:
    """float32 [m, D] of uint8 [m, H, W, Ch], by a program of `size` rows."""
    if size not in self._embedders:
      self._embedders[size] = self._make_embedder(size)
    if not len(pixels):
      return np.zeros(
        (0, self._classifier.bank.embeddings.shape[1]), np.float32
      )
    return self._embedders[size](self._params, self._model_state, pixels)

  def _make_embedder(self, size: int) -> Any:
    classifier = self._classifier
    settings = classifier.preprocessing
    layers = embed.last_layer
    if classifier.head is not None:
      layers = encoder.head_features
    return embed.make_embedder(
      models.create(classifier.model),
      views=settings.on_device,
      batch_size=size,
      mesh=self._mesh,
      resize=functools.partial(
        memory_pipeline.resize, side=settings.image_size
      ),
      layers=layers,
    )


def one_ahead(function: Any, batches: Iterator[Any]) -> Iterator[Any]:
  """Yields (batch, function(batch)), the next one computed meanwhile.

  In one thread: two that both start programs of several devices might start
  them in different orders on different devices, and wait for ever.
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
