"""The contracts between data and train step: `HostBatch` and `Views`.

A pipeline delivers a `HostBatch`, and a method consumes `Views`. Sizes
are global: B unlabelled images, N supports, C classes of this step; between
them, inside `shard_map`, the rows of one device. S is the side of the canvas,
Ch the number of image channels (1 or 3).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax

from paws_jax.parallel import mesh

# On the host an array of NumPy or a number stands here; where only shapes
# matter, a description of an array.
Array = jax.Array | Any


class Canvases(NamedTuple):
  """Images before augmentation, with their sizes and ids."""

  # [n, S, S', Ch] uint8; the image lies in the upper left corner. In the host's
  # memory the words of `host_memory.pack`.
  image: Array
  # [n, 2] int32: height and width of the image on its canvas.
  size: Array
  # [n] int32: rows of the training set, from which keys derive.
  id: Array


class Crops(NamedTuple):
  """Crops that were cut on the host, instead of canvases."""

  # By the name of the view spec, that of the supports being "support":
  # [n, count, H, W, Ch] uint8, mirrored where the view is.
  views: Mapping[str, Array]
  # [n] int32: rows of the training set, from which keys derive.
  id: Array


class Features(NamedTuple):
  """Features of views of images, from a frozen trunk, instead of images."""

  # By the name of the view spec, that of the supports being "support":
  # [n, V, d] float16.
  views: Mapping[str, Array]
  # [n] int32: rows of the training set, from which keys derive.
  id: Array


class HostBatch(NamedTuple):
  """The images of a step; first axes are sharded unless noted.

  With `views.crop_on="host"` there are `Crops` in place of canvases, and with
  `model.trunk="frozen"` `Features`.
  """

  # B canvases; None for methods without unlabelled images.
  unlabelled: Canvases | Crops | Features | None
  # N canvases, padded to a multiple of the devices with repetitions; None, as
  # all that follows, for methods without labelled images.
  support: Canvases | Crops | Features | None
  # [N padded] int32: number of the draw of a support within its class; an image
  # drawn twice is augmented differently each time.
  support_slot: Array | None
  # [N padded] bool, False for padding; None when nothing is padded.
  support_mask: Array | None
  # [N] int32 classes, replicated, without padding.
  support_labels: Array | None
  # [C] int32, replicated: the class of each prediction's column.
  class_ids: Array | None


class Views(NamedTuple):
  """Augmented, normalized crops of one step."""

  # By the name of the view spec: [B, count, H, W, Ch] float32; with features in
  # place of images H = W = 1 and Ch = d. Empty for methods without unlabelled
  # images.
  crops: dict[str, jax.Array]
  # [B] int32: rows of the training set of the crops.
  ids: jax.Array | None = None
  # [N padded, V, H, W, Ch] float32 views of the supports; None, as all that
  # follows, for methods without labelled images.
  support: jax.Array | None = None
  # [N padded] int32: rows of the training set of the supports.
  support_ids: jax.Array | None = None
  # As in HostBatch.
  support_mask: jax.Array | None = None
  support_labels: jax.Array | None = None
  class_ids: jax.Array | None = None


def batch_specs(batch: HostBatch | Views) -> HostBatch | Views:
  """Returns PartitionSpecs: first axes are sharded, labels replicated."""
  specs = jax.tree.map(lambda _: mesh.BATCH, batch)
  labels = (batch.support_labels, batch.class_ids)
  support_labels, class_ids = jax.tree.map(lambda _: mesh.REPLICATED, labels)
  return specs._replace(support_labels=support_labels, class_ids=class_ids)
