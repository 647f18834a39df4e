"""A pipeline that reads and decodes images on the host, step by step.

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
from paws_jax.data import host_memory
from paws_jax.data import sampling
from paws_jax.data.host import batch_shapes
from paws_jax.data.host import choose_loader
from paws_jax.data.host import cut
from paws_jax.data.host import image_reader
from paws_jax.data.host import loader
from paws_jax.data.host import prefetch
from paws_jax.data.host import row_plan
from paws_jax.data.sources import catalog
from paws_jax.parallel import mesh as mesh_lib


class Inputs(NamedTuple):
  """Inputs of a call of several steps."""

  # int32 scalar: step of the first batch.
  first_step: data.Array
  # One for each step, sharded over the devices as `paws_jax.data` says.
  batches: tuple[data.HostBatch, ...]


class HostPipeline:
  """Serves `HostBatch`es from encoded images.

  It has the interface of `memory_pipeline.InMemory`. `inputs` returns batches
  that a thread has already put on the devices; `close`, or leaving the context,
  ends the thread.

  An image that cannot be read stops the run, or is replaced by another: for a
  support by the next labelled image of its class, else by the next image of the
  pool. Its id in the batch stays what was drawn, so that a substitute which is
  in the batch itself gets other views.

  Attributes:
    stall_seconds: total time that the devices have waited for images.
  """

  stall_seconds = 0.0
  _prefetcher: prefetch.Prefetcher | None = None
  _next_step = -1

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
    support_cache_mb: int,
    decoder: str = "auto",
    with_unlabelled: bool = True,
    crops: cut.CropSpecs | None = None,
    num_threads: int | None = None,
    chunks: int = 1,
    in_host_memory: bool = False,
    **decoding: Any,
  ):
    """Stores the settings; reading starts with the first `inputs`.

    Args:
      reader: n encoded training images.
      index: labelled images per class; None without `support`.
      pool: int32 [u], distinct rows that serve as unlabelled images.
      support: the recipe's section; None: no labelled images.
      batch_size: B, unlabelled images a step.
      seed: the run's seed.
      mesh: devices.
      canvas_size: S.
      support_cache_mb: MiB of decoded supports to keep, per process.
      decoder: "tensorflow", "pillow", or "auto": the faster one.
      with_unlabelled: False for methods that train on labelled images alone.
      crops: to be cut on the host; None: batches have canvases.
      num_threads: decoding threads; default one per core of this process.
      chunks: as of `memory_pipeline.InMemory`.
      in_host_memory: whether canvases stay there (`host_memory`).
      **decoding: of `image_reader.ImageReader`.

    Raises:
      errors.InputError: batch, images, pool and devices do not fit.
    """
    self._plan = row_plan.RowPlan(
      index,
      num_images=len(reader),
      pool=pool,
      support=support,
      batch_size=batch_size,
      seed=seed,
      mesh=mesh,
      chunks=chunks,
    )
    self._num_unlabelled = batch_size if with_unlabelled else 0
    self._mesh, self._in_host_memory = mesh, in_host_memory
    self._images = image_reader.ImageReader(reader, fit=canvas_size, **decoding)
    make = choose_loader.loader_class(decoder)
    self._loader = make(self._images, side=canvas_size, num_threads=num_threads)
    self._cache = image_reader.Cache(support_cache_mb * 2**20)
    self._cutters = cut.cutters(crops, seed=seed)

  def __enter__(self) -> HostPipeline:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @property
  def steps_per_epoch(self) -> int:
    """Full batches in the pool."""
    return self._plan.steps_per_epoch

  @property
  def replaced(self) -> dict[str, str]:
    """Names of unreadable images in this process, and of their substitutes."""
    return dict(self._images.replaced)

  @property
  def cached_bytes(self) -> int:
    """Bytes of the decoded supports that are kept."""
    return self._cache.num_bytes

  def inputs(
    self,
    first_step: int,
    num_steps: int,
    *,
    busy: Callable[[], bool] | None = None,
  ) -> Inputs:
    """Returns the batches of a call, which are on the devices.

    Reading continues from there; a call for other steps than the next ones
    restarts it.

    Args:
      first_step: from 0.
      num_steps: steps in the call.
      busy: whether the devices have work, so that waiting here does not stall
        them; None: they have none.

    Raises:
      errors.BadImageError: an image cannot be read, and `on_bad_image` is
        "error".
    """
    if self._prefetcher is None or first_step != self._next_step:
      self.close()
      self._prefetcher = prefetch.Prefetcher(self._batches(first_step))
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
    """Waits for a batch, and adds to `stall_seconds` while devices are idle."""
    assert self._prefetcher is not None
    idle_since: float | None = None

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
    """Returns shapes, dtypes and shardings of `inputs`; reads no image."""
    drawn = self._plan.supports(0) if self._plan.with_supports else None
    batch = batch_shapes.batch_shapes(
      self._mesh,
      side=self._loader.canvas_size,
      num_unlabelled=self._num_unlabelled,
      supports=drawn,
      cutters=self._cutters,
      in_host_memory=self._in_host_memory,
    )
    first_step = jax.ShapeDtypeStruct(
      (), np.int32, sharding=mesh_lib.replicated(self._mesh)
    )
    return Inputs(first_step=first_step, batches=(batch,) * num_steps)

  def batch(self, inputs: Inputs, step: jax.Array) -> data.HostBatch:
    """Selects the batch of a step; traced."""
    if len(inputs.batches) == 1:
      return inputs.batches[0]
    place = step - inputs.first_step
    # A switch copies one batch; indexing a stack would copy all in every step.
    picks = [functools.partial(_pick, k) for k in range(len(inputs.batches))]
    return jax.lax.switch(place, picks, inputs.batches)

  def close(self) -> None:
    """Ends the thread; `inputs` may be called again."""
    if self._prefetcher is not None:
      self._prefetcher.close()
    self._prefetcher = None

  def local_canvases(
    self, first_step: int, devices: Sequence[jax.Device]
  ) -> Iterator[tuple[data.Canvases | data.Crops | None, ...]]:
    """Reads the images of a process, step by step and indefinitely.

    Args:
      first_step: where to begin.
      devices: of the process; only their rows are read.

    Yields:
      Unlabelled images and supports, each None for methods without them: the
      rows of these devices, in the order of `mesh.local_rows`, as NumPy
      arrays.
    """
    streams = self._streams(first_step, devices)
    candidates = {
      "unlabelled": self._plan.from_pool,
      "support": self._plan.same_class,
    }
    steps = zip(
      itertools.count(first_step),
      self._loader.steps(streams, first_step),
      strict=False,
    )
    for step, parts in steps:
      good = {
        name: self._loader.replace_bad(
          part, candidates[name], stream=streams[name], step=step
        )
        for name, part in parts.items()
      }
      yield tuple(
        _as_images(good[name]) if name in good else None
        for name in ("unlabelled", "support")
      )

  def _streams(
    self, first_step: int, devices: Sequence[jax.Device]
  ) -> dict[str, loader.Stream]:
    """Returns what devices of a process read."""
    plan, streams = self._plan, {}
    if self._plan.with_supports:
      num_supports = len(plan.supports(first_step).ids)
      support_rows = mesh_lib.local_rows(num_supports, self._mesh, devices)
      streams["support"] = loader.Stream(
        lambda step: plan.supports(step).ids[support_rows],
        num_rows=len(support_rows),
        cache=self._cache,
        **self._drawing("support", support_rows),
      )
    if self._num_unlabelled:
      rows = mesh_lib.local_rows(self._num_unlabelled, self._mesh, devices)
      streams["unlabelled"] = loader.Stream(
        lambda step: plan.unlabelled(step)[rows],
        num_rows=len(rows),
        **self._drawing("unlabelled", rows),
      )
    for stream in streams.values():
      # Compiles here rather than in a thread of the loader.
      stream.plan(first_step)
      stream.draws(first_step)
    return streams

  def _drawing(self, name: str, rows: np.ndarray) -> dict[str, Any]:
    """Returns how the crops of some rows of a step are drawn and cut."""
    cutter = self._cutters.get(name)
    if cutter is None:
      return {}

    def draw(step: int) -> cut.Draws:
      ids, numbers = self._plan.views(name, step, cutter.num_views)
      with jax.default_device(self._plan.cpu):
        return cutter.draw(ids[rows], numbers[rows], step)

    return {"cutter": cutter, "draw": draw}

  def _batches(self, first_step: int) -> Iterator[data.HostBatch]:
    """Yields global batches from a step on, as arrays on the devices."""
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
    """Makes global arrays of a pytree of this process's rows."""
    if self._in_host_memory and isinstance(rows, data.Canvases):
      return host_memory.place(rows, self._mesh)
    put = functools.partial(mesh_lib.from_local_rows, mesh=self._mesh)
    return jax.tree.map(put, rows)


def _as_images(part: loader.Images) -> data.Canvases | data.Crops:
  if isinstance(part.images, dict):
    return data.Crops(views=part.images, id=part.rows)
  return data.Canvases(image=part.images, size=part.sizes, id=part.rows)


def _pick(place: int, batches: tuple[data.HostBatch, ...]) -> data.HostBatch:
  return batches[place]
