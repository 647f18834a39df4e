"""A pipeline for data sets in device memory, which gathers images there."""

from __future__ import annotations

import copy
import functools
import math
import types
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.augment import resample
from paws_jax.data import epoch_orders
from paws_jax.data import sampling
from paws_jax.parallel import mesh as mesh_lib

_RESIZED_AT_ONCE = 4096


class Inputs(NamedTuple):
  """Inputs of a call of several steps, replicated on every device."""

  # [n, S, S', Ch] uint8: all training images.
  images: data.Array
  # One of them, for supports drawn by class or uniformly; the other is None.
  label_index: sampling.LabelIndex | None
  labelled: sampling.LabelledStream | None
  # [E, n] int32: the orders of the epochs that the call reads.
  orders: data.Array
  # Number of the first of them.
  first_epoch: data.Array


class InMemory:
  """Serves `HostBatch`es from arrays on the devices.

  `inputs` is called on the host once per call of the compiled program;
  `batch` is traced into it.

  Attributes:
    stall_seconds: 0; `inputs` never waits for images.
    replaced: empty; all images are readable.
  """

  stall_seconds = 0.0
  replaced: Mapping[str, str] = types.MappingProxyType({})

  def __init__(
    self,
    images: Any,
    index: sampling.LabelIndex | None,
    *,
    support: config_lib.Support | None,
    batch_size: int,
    seed: int,
    mesh: jax.sharding.Mesh,
    pool: np.ndarray | None = None,
    with_unlabelled: bool = True,
    chunks: int = 1,
  ):
    """Puts the images on the devices.

    Args:
      images: [n, S, S', Ch] uint8 training images, labelled ones included.
      index: labelled images per class; None for methods without them.
      support: the recipe's section; None: no labelled images.
      batch_size: B, unlabelled images a step.
      seed: the run's seed.
      mesh: devices.
      pool: int32 [m], the images that serve as unlabelled ones; default all.
      with_unlabelled: False for methods that train on labelled images alone.
      chunks: in which each device encodes its images, of equal size.

    Raises:
      errors.InputError: fewer images than a batch, or a batch that the
        devices and their chunks do not divide.
    """
    pool = np.arange(len(images), dtype=np.int32) if pool is None else pool
    check_batch(batch_size, num_images=len(pool), mesh=mesh, chunks=chunks)
    self._support = support
    self._batch_size = batch_size
    self._seed = seed
    self._mesh, self._chunks = mesh, chunks
    self._with_unlabelled = with_unlabelled
    self._num_images = len(pool)
    self._images = mesh_lib.place(images, mesh)
    self._index: sampling.LabelIndex | None = None
    self._labelled: epoch_orders.LabelledStream | None = None
    if support is not None:
      assert index is not None
      if support.sampling == "uniform":
        self._num_classes = len(index.counts)
        self._labelled = epoch_orders.LabelledStream(
          index, batch_size=support.num_images, seed=seed, mesh=mesh
        )
      else:
        self._index = mesh_lib.replicate(index, mesh)

    def order(pool: jax.Array, epoch: jax.Array) -> jax.Array:
      return pool[sampling.epoch_order(len(pool), seed=seed, epoch=epoch)]

    self._orders = epoch_orders.EpochOrders(
      functools.partial(
        jax.jit(order, out_shardings=mesh_lib.replicated(mesh)),
        mesh_lib.replicate(pool, mesh),
      )
    )

  def with_chunks(self, chunks: int) -> InMemory:
    """Returns a pipeline of the same arrays for chunks that divide a batch."""
    assert self._batch_size % (self._mesh.size * chunks) == 0
    other = copy.copy(self)
    other._chunks = chunks
    return other

  @property
  def steps_per_epoch(self) -> int:
    """Full batches in an epoch."""
    return self._num_images // self._batch_size

  def inputs(
    self,
    first_step: int,
    num_steps: int,
    *,
    busy: Callable[[], bool] | None = None,
  ) -> Inputs:
    """Returns the arrays that `batch` needs for a call.

    Args:
      first_step: a multiple of `num_steps`.
      num_steps: steps in the call.
      busy: unused; for pipelines that may have to wait.
    """
    del busy
    first = first_step // self.steps_per_epoch
    labelled = None
    if self._labelled is not None:
      labelled = self._labelled.stream(first_step, num_steps)
    return Inputs(
      images=self._images,
      label_index=self._index,
      labelled=labelled,
      orders=self._orders.stack(first, self._num_orders(num_steps)),
      first_epoch=mesh_lib.replicate(np.int32(first), self._mesh),
    )

  def input_shapes(self, num_steps: int) -> Inputs:
    """Returns shapes, dtypes and shardings of `inputs`."""
    replicated = mesh_lib.replicated(self._mesh)

    def struct(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
      return jax.ShapeDtypeStruct(shape, dtype, sharding=replicated)

    orders = (self._num_orders(num_steps), self._num_images)
    labelled = None
    if self._labelled is not None:
      labelled = self._labelled.shapes(num_steps)
    return Inputs(
      images=jax.tree.map(lambda x: struct(x.shape, x.dtype), self._images),
      label_index=jax.tree.map(lambda x: struct(x.shape, x.dtype), self._index),
      labelled=jax.tree.map(lambda x: struct(x.shape, x.dtype), labelled),
      orders=struct(orders, np.int32),
      first_epoch=struct((), np.int32),
    )

  def _num_orders(self, num_steps: int) -> int:
    """Computes the most epochs that any call of `num_steps` reads.

    The same for every call, so that the program is compiled once.
    """
    per_epoch = self.steps_per_epoch
    latest_start = per_epoch - math.gcd(num_steps, per_epoch)
    return (latest_start + num_steps - 1) // per_epoch + 1

  def close(self) -> None:
    """Does nothing; a pipeline that reads on the host ends its thread."""

  def batch(self, inputs: Inputs, step: jax.Array) -> data.HostBatch:
    """Gathers the images of a step; traced."""
    unlabelled = self._unlabelled(inputs, step)
    if self._support is None:
      return data.HostBatch(unlabelled, *[None] * 5)
    ids, slots, labels, class_ids = self._supports(inputs, step)
    # Padding repeats the last support. jnp.pad would be distributed by XLA and
    # cost two collectives.
    num_rows = mesh_lib.padded_size(ids.size, self._mesh, self._chunks)
    places = np.arange(num_rows, dtype=np.int32)
    mask = None
    if num_rows > ids.size:
      mask = self._spread(jnp.asarray(places < ids.size))
    places = np.minimum(places, ids.size - 1)
    return data.HostBatch(
      unlabelled=unlabelled,
      support=self._canvases(inputs.images, ids[places], of_supports=True),
      support_slot=self._spread(jnp.asarray(slots[places])),
      support_mask=mask,
      support_labels=labels,
      class_ids=class_ids,
    )

  def _supports(
    self, inputs: Inputs, step: jax.Array
  ) -> tuple[jax.Array, Any, jax.Array, jax.Array]:
    """Draws ids [N], slots [N], labels [N] and class_ids [C] of supports."""
    support = self._support
    assert support is not None
    slots: Any
    if inputs.labelled is not None:
      ids, labels, slots = sampling.uniform_indices(
        inputs.labelled, step=step, batch_size=support.num_images
      )
      class_ids = jnp.arange(self._num_classes, dtype=jnp.int32)
    else:
      slots = np.arange(support.num_images, dtype=np.int32)
      slots %= support.images_per_class
      assert inputs.label_index is not None
      ids, labels, class_ids = sampling.class_balanced_indices(
        inputs.label_index,
        seed=self._seed,
        step=step,
        classes_per_step=support.classes_per_step,
        images_per_class=support.images_per_class,
      )
    # Without the constraint, XLA distributes the sorts.
    ids, labels, class_ids = mesh_lib.constrain(
      (ids, labels, class_ids), mesh_lib.replicated(self._mesh)
    )
    return ids, slots, labels, class_ids

  def _unlabelled(
    self, inputs: Inputs, step: jax.Array
  ) -> data.Canvases | None:
    if not self._with_unlabelled:
      return None
    epoch = step // self.steps_per_epoch
    first = (step % self.steps_per_epoch) * self._batch_size
    row = epoch - inputs.first_epoch
    ids = jax.lax.dynamic_slice(
      inputs.orders, (row, first), (1, self._batch_size)
    )
    return self._canvases(inputs.images, ids[0], of_supports=False)

  def _canvases(self, images: Any, ids: jax.Array, *, of_supports: bool) -> Any:
    ids = mesh_lib.constrain(ids, mesh_lib.replicated(self._mesh))
    return self._gather(images, ids, of_supports=of_supports)

  def _gather(self, images: Any, ids: jax.Array, *, of_supports: bool) -> Any:
    """Gathers what stands for images in a `HostBatch`: rows, spread."""
    del of_supports
    size = jnp.asarray(images.shape[1:3], jnp.int32)
    return data.Canvases(
      image=self._spread(images[ids]),
      size=self._spread(jnp.broadcast_to(size[None, :], (ids.size, 2))),
      id=self._spread(ids),
    )

  def _spread(self, array: jax.Array) -> jax.Array:
    return mesh_lib.constrain(array, mesh_lib.batch_sharded(self._mesh))


def batch_problems(
  batch_size: int,
  *,
  num_images: int,
  mesh: jax.sharding.Mesh,
  chunks: int = 1,
) -> list[str]:
  """Lists reasons why the images or devices do not fit a batch size."""
  problems = []
  if not num_images:
    problems.append(
      "there are no unlabelled images to train on: every image is labelled, "
      "and data.include_labelled is False. Set it to True, or name more images "
      "(data.unlabelled_dir)."
    )
  elif num_images < batch_size:
    problems.append(
      f"train.batch_size is {batch_size} but there are {num_images} images to "
      "train on: lower batch_size to at most that."
    )
  if batch_size % mesh.size:
    problems.append(
      f"train.batch_size is {batch_size}, which {mesh.size} devices do not "
      "divide: make it a multiple."
    )
  elif batch_size % (mesh.size * chunks):
    problems.append(
      f"train.batch_size is {batch_size}, of which each of {mesh.size} devices "
      f"has {batch_size // mesh.size}, but train.chunks is {chunks}, which "
      "does not divide that: unlabelled images cannot be padded, only "
      "supports. Choose a divisor. A run that has started keeps its number, "
      "also with train.chunks=auto: continue it on devices that share the "
      "batch in multiples of it."
    )
  return problems


def check_batch(
  batch_size: int,
  *,
  num_images: int,
  mesh: jax.sharding.Mesh,
  chunks: int = 1,
) -> None:
  """Refuses a batch that has `batch_problems`.

  Raises:
    errors.InputError: the first of them.
  """
  for problem in batch_problems(
    batch_size, num_images=num_images, mesh=mesh, chunks=chunks
  ):
    raise errors.InputError(problem)


def resize(images: np.ndarray, *, side: int) -> np.ndarray:
  """Resizes images to squares, bilinearly with antialiasing.

  Args:
    images: [n, H, W, Ch] uint8.
    side: in pixels; 0: no resizing.

  Returns:
    [n, side, side, Ch] uint8.
  """
  if side == 0 or images.shape[1:3] == (side, side):
    return images
  starts = range(0, len(images), _RESIZED_AT_ONCE)
  parts = [
    _resize_batch(images[i : i + _RESIZED_AT_ONCE], side=side) for i in starts
  ]
  return np.concatenate([np.asarray(part) for part in parts])


@jax.jit(static_argnames="side")
def _resize_batch(images: jax.Array, *, side: int) -> jax.Array:
  box = jnp.asarray([[0, 0, *images.shape[1:3]]], jnp.int32)
  boxes = jnp.broadcast_to(box, (len(images), 4))
  resized = resample.crop_and_resize(images, boxes, size=side)
  return jnp.round(resized).astype(jnp.uint8)
