"""Views that are cut where they are encoded, not before."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax

from paws_jax import augment
from paws_jax import config as config_lib
from paws_jax.data import host_memory


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=("images", "sizes", "keys"),
  meta_fields=("spec", "mean", "std", "folded"),
)
@dataclasses.dataclass(frozen=True)
class Uncut:
  """Stands for an array [n, V, H, W, Ch] of `Views` that does not exist yet.

  It takes the bytes of the undistorted images instead of those of float32
  views. Its arrays share their first axis, that of the images, so that a run of
  images can be taken of each.

  Attributes:
    images: uint8 canvases [n, S, S', Ch], or words of them in the host's memory
      (`host_memory`); or crops that were cut on the host, [n, V, H, W, Ch].
    sizes: [n, 2] of the images on their canvases; None: crops.
    keys: [n, V, ...] uint32, data of one PRNG key for each view.
    spec: of the views.
    mean: per channel.
    std: per channel.
    folded: whether it stands for [n·V, H, W, Ch], image-major.
  """

  images: jax.Array
  sizes: jax.Array | None
  keys: jax.Array
  spec: config_lib.ViewSpec
  mean: tuple[float, ...]
  std: tuple[float, ...]
  folded: bool = False

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of the array."""
    num_images, num_views = self.keys.shape[:2]
    side = self.spec.size
    view = (side, side, len(self.mean))
    if self.folded:
      return (num_images * num_views, *view)
    return (num_images, num_views, *view)

  @property
  def ndim(self) -> int:
    """Number of axes of the array."""
    return len(self.shape)

  def __getitem__(self, index: tuple[slice, int]) -> Uncut:
    """Selects one view of each image: `views[:, i]`, [n, H, W, Ch].

    Raises:
      IndexError: any other index.
    """
    if self.folded or len(index) != 2 or index[0] != slice(None):
      raise IndexError("of views that are not cut yet, take views[:, i] only")
    # A negative index would be an empty slice.
    first = range(self.keys.shape[1])[index[1]]
    images = self.images
    if self.sizes is None:
      images = images[:, first : first + 1]
    return dataclasses.replace(
      self, images=images, keys=self.keys[:, first : first + 1], folded=True
    )

  def run(self, index: jax.Array | int, count: int) -> Uncut:
    """Selects the images of a run of rows, the others staying where they are.

    Args:
      index: of the run; traced.
      count: runs of all rows.
    """
    size = self.keys.shape[0] // count

    def select(rows: jax.Array) -> jax.Array:
      return jax.lax.dynamic_slice_in_dim(rows, index * size, size)

    return jax.tree.map(select, self)

  def fold(self) -> Uncut:
    """Merges image and view axes, image-major."""
    return dataclasses.replace(self, folded=True)

  def cut(self) -> jax.Array:
    """Cuts and distorts the views: float32, of this shape."""
    keys = jax.random.wrap_key_data(self.keys)
    options: dict[str, Any] = {
      "spec": self.spec,
      "mean": self.mean,
      "std": self.std,
    }
    if self.sizes is None:
      views = augment.distort_views(keys, self.images, **options)
    else:
      images = self.images
      if host_memory.is_packed(images):
        images = host_memory.unpack(images)
      views = augment.multi_views(keys, images, self.sizes, **options)
    return views.reshape(self.shape)
