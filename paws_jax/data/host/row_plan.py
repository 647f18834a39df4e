"""The rows of a data set of each step.

The draws are those of `sampling`, computed on the CPU: a host that reads the
images needs their rows, and the accelerator is busy.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.data.host import image_reader
from paws_jax.parallel import mesh as mesh_lib


class Supports(NamedTuple):
  """The supports of a step, for all devices, on the host."""

  # [N padded] int32 rows, slots; [N padded] bool, or None without padding.
  ids: np.ndarray
  slots: np.ndarray
  mask: np.ndarray | None
  # [N] int32; [C] int32.
  labels: np.ndarray
  class_ids: np.ndarray


# Compiled once for all pipelines.
_draw_supports = jax.jit(
  sampling.class_balanced_indices,
  static_argnames=("classes_per_step", "images_per_class"),
)
_draw_order = jax.jit(sampling.epoch_order, static_argnums=0)
_draw_labelled_order = jax.jit(sampling.labelled_order, static_argnums=0)


class RowPlan:
  """Plan of the rows of unlabelled images and supports of every step."""

  def __init__(
    self,
    index: sampling.LabelIndex | None,
    *,
    num_images: int,
    pool: np.ndarray,
    support: config_lib.Support | None,
    batch_size: int,
    seed: int,
    mesh: jax.sharding.Mesh,
    chunks: int = 1,
  ):
    """Keeps the settings, as `host.HostPipeline` takes them.

    Raises:
      ValueError: fewer images than a batch, a batch that does not divide over
        the devices, or rows that do not exist.
    """
    self._pool = np.asarray(pool, np.int32)
    memory_pipeline.check_batch(
      batch_size, num_images=len(self._pool), mesh=mesh, chunks=chunks
    )
    _check_rows(self._pool, num_images)
    self._sorted_pool = np.sort(self._pool)
    self._batch_size = batch_size
    self._mesh, self._chunks = mesh, chunks
    self.cpu = _own_cpu()
    self._seed = seed
    self._support = support
    self.with_supports = support is not None
    if support is not None:
      assert index is not None
      self._index = sampling.LabelIndex(*map(np.asarray, index))
      self._labelled = sampling.labelled_images(self._index)
    # Two epochs are in use where one ends.
    self._order = functools.lru_cache(maxsize=2)(self._epoch_order)
    self._labelled_order = functools.lru_cache(maxsize=2)(self._epoch_order)
    # Each is asked for when its images are read, and when they are handed out.
    self._supports = functools.lru_cache(maxsize=16)(self._draw_supports)

  @property
  def steps_per_epoch(self) -> int:
    """Number of complete batches in the pool."""
    return len(self._pool) // self._batch_size

  def unlabelled(self, step: int) -> np.ndarray:
    """Returns the rows of the unlabelled images of a step, int32 [B]."""
    epoch, place = divmod(step, self.steps_per_epoch)
    first = place * self._batch_size
    order = self._order(_draw_order, len(self._pool), epoch)
    return self._pool[order[first : first + self._batch_size]]

  def supports(self, step: int) -> Supports:
    """Returns the supports of a step, padded as in the in-memory pipeline."""
    return self._supports(step)

  def views(
    self, name: str, step: int, num_views: int
  ) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of a step and the numbers of their views, [n, V].

    Args:
      name: "unlabelled" or "support".
      step: from 0.
      num_views: V, views of an image.
    """
    if name == "unlabelled":
      ids = self.unlabelled(step)
      return ids, sampling.view_numbers(np.zeros_like(ids), num_views)
    drawn = self.supports(step)
    return drawn.ids, sampling.view_numbers(drawn.slots, num_views)

  def _draw_supports(self, step: int) -> Supports:
    support = self._support
    assert support is not None
    if support.sampling == "uniform":
      ids, labels, slots = self._uniform(step, support)
      class_ids = np.arange(len(self._index.counts), dtype=np.int32)
    else:
      ids, labels, class_ids = self._balanced(step, support)
      slots = np.arange(len(ids), dtype=np.int32)
      slots %= np.int32(support.images_per_class)
    num_rows = mesh_lib.padded_size(len(ids), self._mesh, self._chunks)
    places = np.arange(num_rows, dtype=np.int32)
    mask = places < len(ids) if num_rows > len(ids) else None
    # Padding repeats the last support.
    places = np.minimum(places, len(ids) - 1)
    return Supports(
      ids=ids[places],
      slots=slots[places],
      mask=mask,
      labels=labels,
      class_ids=class_ids,
    )

  def _balanced(
    self, step: int, support: config_lib.Support
  ) -> tuple[np.ndarray, ...]:
    with jax.default_device(self.cpu):
      drawn = _draw_supports(
        self._index,
        seed=self._seed,
        step=np.int32(step),
        classes_per_step=support.classes_per_step,
        images_per_class=support.images_per_class,
      )
    return tuple(map(np.asarray, drawn))

  def _uniform(self, step: int, support: config_lib.Support) -> tuple[Any, ...]:
    ids, labels = self._labelled
    batch_size = support.num_images
    epoch, place = sampling.uniform_start(
      step, num_images=len(ids), batch_size=batch_size
    )
    last = (place + batch_size - 1) // len(ids)
    orders = [
      self._labelled_order(_draw_labelled_order, len(ids), epoch + k)
      for k in range(last + 1)
    ]
    stream = sampling.LabelledStream(
      ids,
      labels,
      np.stack(orders),
      first_step=step,
      first_place=np.int32(place),
    )
    return sampling.uniform_indices(stream, step=step, batch_size=batch_size)

  def same_class(self, row: int) -> Iterator[int]:
    """Yields the other labelled images of the class of a labelled image."""
    ids, counts = map(np.asarray, self._index)
    label = int(np.argmax((ids == row).any(axis=1)))
    return image_reader.rows_after(row, ids[label, : counts[label]])

  def from_pool(self, row: int) -> Iterator[int]:
    """Yields the other unlabelled images."""
    return image_reader.rows_after(row, self._sorted_pool)

  def _epoch_order(
    self, draw: Callable[..., jax.Array], num_images: int, epoch: int
  ) -> np.ndarray:
    with jax.default_device(self.cpu):
      order = draw(num_images, seed=self._seed, epoch=np.int32(epoch))
      return np.asarray(order)


def _own_cpu() -> jax.Device:
  """Returns the CPU device of this process."""
  try:
    return jax.local_devices(backend="cpu")[0]
  except RuntimeError as error:
    # JAX adds the fields of its configuration at run time.
    config: Any = jax.config
    platforms = config.jax_platforms
    raise errors.InputError(
      f"JAX_PLATFORMS is {platforms!r} and leaves out the CPU, on which the "
      f"images of a step are drawn: set it to '{platforms},cpu'."
    ) from error


def _check_rows(pool: np.ndarray, num_images: int) -> None:
  """Refuses rows that do not exist."""
  if pool.ndim != 1 or pool.min() < 0 or pool.max() >= num_images:
    raise errors.InputError(
      f"pool has rows {pool.min()} to {pool.max()} (rank {pool.ndim}), but "
      f"there are {num_images} images: give each as a number from 0 to "
      f"{num_images - 1}."
    )
