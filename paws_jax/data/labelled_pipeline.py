"""Epochs over labelled images with their labels, each image once.

A pipeline's stream of unlabelled images runs over the labelled images, and
serves as the supports of the batches, which have labels. The order is that of
the pipeline: `sampling.epoch_order`, a function of (seed, epoch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import config as config_lib
from paws_jax import data
from paws_jax import errors
from paws_jax.data import sampling
from paws_jax.parallel import mesh as mesh_lib

# Label of a row that pads a batch; it must not count.
FILLER = -1

# The pipeline draws as few supports as possible; they are not used.
_FEWEST_SUPPORTS = config_lib.Support(
  classes_per_step=1,
  images_per_class=1,
  num_views=1,
  label_smoothing=0.0,
  with_replacement=True,
  sampling="balanced",
  batch_size=0,
)


class LabelledEpochs:
  """A pipeline whose supports are the next labelled images of an epoch.

  An epoch is padded with repeated images to full batches; these fillers are
  shuffled with the other images. Their label is `FILLER`
  and `support_mask` is False: they count neither in a loss nor in batch
  statistics. Every step has at least one image that counts.

  Attributes:
    batch_size: rows of a step: the recipe's, or fewer if there are fewer
      images.
    steps_per_epoch: the smallest number of steps that visits all images.
  """

  def __init__(
    self,
    make_pipeline: Callable[..., Any],
    *,
    ids: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    batch_size: int,
    seed: int,
    mesh: jax.sharding.Mesh,
    field: str = "finetune.batch_size",
  ):
    """Creates the pipeline.

    Args:
      make_pipeline: of a `dataset.Dataset`.
      ids: int32 [n], rows of the training set.
      labels: int32 [n], of these rows.
      num_classes: K.
      batch_size: B, as the recipe has it.
      seed: the run's seed.
      mesh: devices.
      field: of the recipe that holds B, for messages.

    Raises:
      errors.InputError: when the devices do not divide the batch.
    """
    check_batch(batch_size, num_images=len(ids), mesh=mesh, field=field)
    self.batch_size = min(batch_size, mesh_lib.padded_size(len(ids), mesh))
    self.steps_per_epoch = -(-len(ids) // self.batch_size)
    num_places = self.steps_per_epoch * self.batch_size
    fillers = np.resize(ids, num_places - len(ids))
    self._labels = np.full(num_places, FILLER, np.int32)
    self._labels[: len(ids)] = labels
    self._num_classes = num_classes
    self._seed = seed
    self._mesh = mesh
    self._pipeline = make_pipeline(
      support=_FEWEST_SUPPORTS,
      labelled_ids=np.asarray(ids, np.int32),
      pool=np.concatenate([ids, fillers]).astype(np.int32),
      batch_size=self.batch_size,
      seed=seed,
      mesh=mesh,
      with_unlabelled=True,
    )

  def inputs(
    self,
    first_step: int,
    num_steps: int,
    *,
    busy: Callable[[], bool] | None = None,
  ) -> Any:
    """Returns the inputs of `batch`, as `memory_pipeline.InMemory` does."""
    return self._pipeline.inputs(first_step, num_steps, busy=busy)

  def batch(self, inputs: Any, step: jax.Array) -> data.HostBatch:
    """Gathers the images of a step; traced."""
    images = self._pipeline.batch(inputs, step).unlabelled
    labels = self._batch_labels(step)
    mask = None
    if np.any(self._labels == FILLER):
      mask = mesh_lib.constrain(
        labels != FILLER, mesh_lib.batch_sharded(self._mesh)
      )
    return data.HostBatch(
      unlabelled=None,
      support=images,
      support_slot=jnp.zeros_like(images.id),
      support_mask=mask,
      support_labels=labels,
      class_ids=jnp.arange(self._num_classes, dtype=jnp.int32),
    )

  def _batch_labels(self, step: jax.Array) -> jax.Array:
    """Returns labels by place in the epoch, to tell fillers: int32 [B]."""
    order = sampling.epoch_order(
      len(self._labels), seed=self._seed, epoch=step // self.steps_per_epoch
    )
    # Without the constraint, XLA distributes the sort.
    order = mesh_lib.constrain(order, mesh_lib.replicated(self._mesh))
    first = (step % self.steps_per_epoch) * self.batch_size
    places = jax.lax.dynamic_slice(order, (first,), (self.batch_size,))
    return jnp.asarray(self._labels)[places]

  def close(self) -> None:
    """Ends the pipeline's thread, if it has one."""
    self._pipeline.close()


def check_batch(
  batch_size: int,
  *,
  num_images: int,
  mesh: jax.sharding.Mesh,
  field: str = "finetune.batch_size",
) -> None:
  """Refuses a batch size that the devices do not divide.

  A batch of all `num_images` may have any size.

  Raises:
    errors.InputError: with both numbers.
  """
  one_step = batch_size >= mesh_lib.padded_size(num_images, mesh)
  if batch_size % mesh.size and not one_step:
    raise errors.InputError(
      f"{field} is {batch_size}, which {mesh.size} devices do not divide: "
      "make it a multiple."
    )
