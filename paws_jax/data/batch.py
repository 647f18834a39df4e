"""What flows from data to the train step: the two contracts.

`HostBatch` is what a pipeline delivers, `Views` what a method consumes. Sizes
are global: B unlabelled images, N supports, C classes of this step; between
them, inside `shard_map`, the rows of one device. S is the side of the canvas,
Ch the number of image channels (1 or 3).
"""

from __future__ import annotations

from typing import NamedTuple

import jax

from paws_jax.parallel import mesh


class Canvases(NamedTuple):
  """Undistorted images with what augmentation needs to know of them."""

  # [n, S, S', Ch] uint8; the image lies in the upper left corner.
  image: jax.Array
  # [n, 2] int32: height and width of the image on its canvas.
  size: jax.Array
  # [n] int32: which image of the training set; keys derive from it.
  id: jax.Array


class HostBatch(NamedTuple):
  """One step's images. First axes are spread over devices, unless noted."""

  # B canvases; None for methods without unlabelled images.
  unlabelled: Canvases | None
  # N canvases, padded to a multiple of the devices with repetitions.
  support: Canvases
  # [N padded] int32: which of its class's draws a support is; an image drawn
  # twice is augmented differently each time.
  support_slot: jax.Array
  # [N padded] bool, False for padding; None when nothing is padded.
  support_mask: jax.Array | None
  # [N] int32 classes, on every device whole and without padding.
  support_labels: jax.Array
  # [C] int32, on every device whole: the class of each prediction's column.
  class_ids: jax.Array


class Views(NamedTuple):
  """Augmented, normalised float32 crops of one step."""

  # [B, L, H, W, Ch] large crops; None for methods without unlabelled images.
  large: jax.Array | None
  # [B, M, h, w, Ch] small crops; None when M is 0.
  small: jax.Array | None
  # [N padded, V, H, W, Ch] views of the supports.
  support: jax.Array
  # As in HostBatch.
  support_mask: jax.Array | None
  support_labels: jax.Array
  class_ids: jax.Array


def batch_specs(batch: HostBatch | Views) -> HostBatch | Views:
  """PartitionSpecs of a batch: what is spread over devices, what is whole."""
  specs = jax.tree.map(lambda _: mesh.BATCH, batch)
  return specs._replace(
    support_labels=mesh.REPLICATED, class_ids=mesh.REPLICATED
  )
