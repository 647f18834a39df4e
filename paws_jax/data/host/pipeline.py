"""A pipeline for encoded images: read on the host, one step after another.

Ids, supports and keys are those of the in-memory pipeline. Each process reads
the rows of its own devices only, and what it reads depends on (seed, step)
alone: a resumed run, on any number of processes, sees the same global batches.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import tf_runtime
from paws_jax.data import sampling
from paws_jax.data.host import image_reader
from paws_jax.data.host import loader
from paws_jax.data.host import prefetch
from paws_jax.data.host import row_plan
from paws_jax.data.sources import catalog
from paws_jax.parallel import cpu_devices
from paws_jax.parallel import mesh as mesh_lib


class Inputs(NamedTuple):
  """What one call of several steps reads."""

  # int32 scalar: step of the first batch.
  first_step: jax.Array
  # One for each step, spread over the devices as in the contract.
  batches: tuple[data.HostBatch, ...]


class HostPipeline:
  """Serves `HostBatch`es out of encoded images.

  The interface of `memory_pipeline.InMemory`. `inputs` hands out batches that a
  thread has already put on the devices; `close`, or leaving the context, ends
  the thread.

  An image that cannot be read stops the run, or is replaced by another: for a
  support by the next labelled image of its class, else by the next image of the
  pool. Its id in the batch stays what was drawn, so that a substitute which is
  in the batch itself gets other views.

  Attributes:
    stall_seconds: how long the devices have waited for images, in all.
  """

  def __init__(
    self,
    reader: catalog.Reader,
    index: sampling.LabelIndex | None,
    *,
    pool: np.ndarray,
    support: config_lib.Support | None,
    batch_size: int,
    seed: int,
    mesh: jax.sharding.Mesh,
    canvas_size: int,
    on_bad_image: str,
    max_pixels: int,
    support_cache_mb: int,
    with_unlabelled: bool = True,
    num_threads: int | None = None,
  ):
    """Keeps the settings; reading starts with the first `inputs`.

    Args:
      reader: n encoded training images.
      index: labelled images per class, on the host; None for methods without
        labelled images.
      pool: int32 [u] rows of the unlabelled stream, each at most once.
      support: the recipe's section; None: no labelled images.
      batch_size: B, unlabelled images a step.
      seed: the run's seed.
      mesh: devices.
      canvas_size: S.
      on_bad_image: "error" or "skip".
      max_pixels: an image of more is a bad one.
      support_cache_mb: 2**20 bytes of decoded supports to keep, per process.
      with_unlabelled: False for methods that train on labelled images alone.
      num_threads: that decode; default one for each core of this process.

    Raises:
      ValueError: fewer images than a batch, a batch that does not divide over
        the devices, rows that do not exist, or an unknown `on_bad_image`.
    """
    self._plan = row_plan.RowPlan(
      index,
      num_images=len(reader),
      pool=pool,
      support=support,
      batch_size=batch_size,
      seed=seed,
      mesh=mesh,
    )
    self._batch_size = batch_size
    self._mesh = mesh
    self._with_unlabelled = with_unlabelled
    self._with_supports = support is not None
    self._images = image_reader.ImageReader(
      reader,
      max_pixels=max_pixels,
      on_bad_image=on_bad_image,
      fit=canvas_size,
    )
    self._loader = loader.Loader(
      self._images,
      canvas_size=canvas_size,
      max_pixels=max_pixels,
      num_threads=num_threads or cpu_devices.num_cores(),
    )
    self._canvas_size = canvas_size
    self._cache = image_reader.Cache(support_cache_mb * 2**20)
    self._prefetcher: prefetch.Prefetcher | None = None
    self._next_step = -1
    self.stall_seconds = 0.0

  def __enter__(self) -> HostPipeline:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  @property
  def steps_per_epoch(self) -> int:
    """Whole batches in the pool."""
    return self._plan.steps_per_epoch

  @property
  def replaced(self) -> dict[str, str]:
    """Names of bad images that this process met, with their substitutes."""
    return dict(self._images.replaced)

  @property
  def cached_bytes(self) -> int:
    """Of the decoded supports that are kept."""
    return self._cache.num_bytes

  def inputs(
    self,
    first_step: int,
    num_steps: int,
    *,
    busy: Callable[[], bool] | None = None,
  ) -> Inputs:
    """Batches of `num_steps` steps from `first_step`, which wait on devices.

    Reading goes on from there; a call for other steps than the next ones
    starts it anew.

    Args:
      first_step: from 0.
      num_steps: of the call.
      busy: whether the devices have work; while they have, waiting here stalls
        nothing. Default: they have none.

    Raises:
      BadImageError: an image cannot be read, and must not be replaced.
    """
    if self._prefetcher is None or first_step != self._next_step:
      self.close()
      batches = self._batches(first_step)
      self._prefetcher = prefetch.Prefetcher(batches)
    try:
      batches = tuple(self._next_batch(busy) for _ in range(num_steps))
    except BaseException:
      self.close()
      raise
    self._next_step = first_step + num_steps
    return Inputs(
      first_step=mesh_lib.replicate(np.int32(first_step), self._mesh),
      batches=batches,
    )

  def _next_batch(self, busy: Callable[[], bool] | None) -> data.HostBatch:
    """Waits for a batch, and counts the time in which the devices idle."""
    idle_since = None

    def look() -> None:
      nonlocal idle_since
      if idle_since is None and not (busy and busy()):
        idle_since = time.perf_counter()

    look()
    batch = self._prefetcher.get(while_waiting=look)
    if idle_since is not None:
      self.stall_seconds += time.perf_counter() - idle_since
    return batch

  def input_shapes(self, num_steps: int) -> Inputs:
    """Shapes, dtypes and shardings of `inputs`, without reading anything."""
    side = self._canvas_size

    def rows(*shape: int, dtype: np.dtype = np.int32) -> jax.ShapeDtypeStruct:
      spread = mesh_lib.batch_sharded(self._mesh)
      return jax.ShapeDtypeStruct(shape, dtype, sharding=spread)

    def whole(*shape: int) -> jax.ShapeDtypeStruct:
      replicated = mesh_lib.replicated(self._mesh)
      return jax.ShapeDtypeStruct(shape, np.int32, sharding=replicated)

    def canvases(num_rows: int) -> data.Canvases:
      return data.Canvases(
        image=rows(num_rows, side, side, 3, dtype=np.uint8),
        size=rows(num_rows, 2),
        id=rows(num_rows),
      )

    unlabelled = canvases(self._batch_size) if self._with_unlabelled else None
    batch = data.HostBatch(unlabelled, *[None] * 5)
    if self._with_supports:
      drawn = self._plan.supports(0)
      num_supports = len(drawn.ids)
      batch = data.HostBatch(
        unlabelled=unlabelled,
        support=canvases(num_supports),
        support_slot=rows(num_supports),
        support_mask=None
        if drawn.mask is None
        else rows(num_supports, dtype=np.bool_),
        support_labels=whole(*drawn.labels.shape),
        class_ids=whole(*drawn.class_ids.shape),
      )
    return Inputs(first_step=whole(), batches=(batch,) * num_steps)

  def batch(self, inputs: Inputs, step: jax.Array) -> data.HostBatch:
    """Picks the batch of a step; traced."""
    if len(inputs.batches) == 1:
      return inputs.batches[0]
    place = step - inputs.first_step
    # A switch copies one batch; a stack would copy all in every step.
    picks = [functools.partial(_pick, k) for k in range(len(inputs.batches))]
    return jax.lax.switch(place, picks, inputs.batches)

  def close(self) -> None:
    """Ends the thread; `inputs` may be called again."""
    if self._prefetcher is not None:
      self._prefetcher.close()
    self._prefetcher = None

  def local_canvases(
    self, first_step: int, devices: Sequence[jax.Device]
  ) -> Iterator[tuple[data.Canvases | None, data.Canvases | None]]:
    """What a process reads, step by step and without end.

    Args:
      first_step: where to begin.
      devices: its devices; only their rows are read.

    Yields:
      Unlabelled images and supports, each None for methods without them: the
      rows of these devices, in the order of `sharding.local_rows`, as NumPy
      arrays.
    """
    tf = tf_runtime.load()
    streams, candidates = {}, {}
    if self._with_supports:
      num_supports = len(self._plan.supports(first_step).ids)
      support_rows = mesh_lib.local_rows(num_supports, self._mesh, devices)
      candidates["support"] = self._plan.same_class
      streams["support"] = self._loader.stream(
        lambda step: self._plan.supports(step).ids[support_rows],
        num_rows=len(support_rows),
        first_step=first_step,
        cache=self._cache,
      )
    if self._with_unlabelled:
      # Compiled here, and not in a thread of TensorFlow's.
      self._plan.unlabelled(first_step)
      rows = mesh_lib.local_rows(self._batch_size, self._mesh, devices)
      candidates["unlabelled"] = self._plan.from_pool
      streams["unlabelled"] = self._loader.stream(
        lambda step: self._plan.unlabelled(step)[rows],
        num_rows=len(rows),
        first_step=first_step,
      )
    steps = tf.data.Dataset.zip(streams).prefetch(1)
    for parts in steps.with_options(self._loader.options()):
      yield tuple(
        self._canvases(parts[name], candidates[name]) if name in parts else None
        for name in ("unlabelled", "support")
      )

  def _batches(self, first_step: int) -> Iterator[data.HostBatch]:
    """Global batches from a step on, as arrays on this process's devices."""
    devices = mesh_lib.local_devices(self._mesh)
    local = self.local_canvases(first_step, devices)
    for step, (unlabelled, support) in zip(
      itertools.count(first_step), local, strict=False
    ):
      unlabelled = self._spread(unlabelled)
      if support is None:
        yield data.HostBatch(unlabelled, *[None] * 5)
        continue
      drawn = self._plan.supports(step)
      rows = mesh_lib.local_rows(len(drawn.ids), self._mesh, devices)
      yield data.HostBatch(
        unlabelled=unlabelled,
        support=self._spread(support),
        support_slot=self._spread(drawn.slots[rows]),
        support_mask=self._spread(
          None if drawn.mask is None else drawn.mask[rows]
        ),
        support_labels=mesh_lib.replicate(drawn.labels, self._mesh),
        class_ids=mesh_lib.replicate(drawn.class_ids, self._mesh),
      )

  def _spread(self, rows: Any) -> Any:
    """Global arrays out of a pytree of this process's rows."""
    put = functools.partial(mesh_lib.from_local_rows, mesh=self._mesh)
    return jax.tree.map(put, rows)

  def _canvases(self, batch, candidates) -> data.Canvases:
    """A batch of TensorFlow's as NumPy arrays, its bad images replaced."""
    # Views of TensorFlow's memory, which they keep alive: nothing is copied.
    images, sizes, rows = (np.asarray(memoryview(part)) for part in batch)
    images, sizes = self._loader.replace_bad(
      images, sizes, rows, candidates=candidates
    )
    return data.Canvases(image=images, size=sizes, id=rows)


def _pick(place: int, batches: tuple[data.HostBatch, ...]) -> data.HostBatch:
  return batches[place]
