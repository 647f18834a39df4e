"""A pipeline of the features of a frozen trunk, on the devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from paws_jax import data
from paws_jax.data import memory_pipeline


class Stored(NamedTuple):
  """Features of all views that steps draw from."""

  # By the name of the view spec: [n, V, d] float16 of all training images.
  views: Mapping[str, data.Array]
  # [m, V', d] float16 of the labelled ones; None for methods without them.
  support: data.Array | None
  # [n] int32: place of a training image in `support`, 0 where it has none.
  place: data.Array


class FeaturePipeline(memory_pipeline.InMemory):
  """Serves `HostBatch`es whose images are `data.Features`.

  Ids, supports and arguments are those of `memory_pipeline.InMemory`, but for
  `Stored` in place of the images.
  """

  def _gather(
    self, images: Stored, ids: jax.Array, *, of_supports: bool
  ) -> data.Features:
    if of_supports:
      assert images.support is not None
      views = {"support": images.support[images.place[ids]]}
    else:
      views = {name: array[ids] for name, array in images.views.items()}
    return data.Features(
      views={name: self._spread(array) for name, array in views.items()},
      id=self._spread(ids),
    )


def places(labelled_ids: np.ndarray, *, num_images: int) -> np.ndarray:
  """Returns `Stored.place` for supports in the order of the labelled images."""
  found = np.zeros(num_images, np.int32)
  found[labelled_ids] = np.arange(len(labelled_ids), dtype=np.int32)
  return found
