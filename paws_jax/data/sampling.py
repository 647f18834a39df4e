"""The images of each step, as pure functions of (seed, step or epoch).

Nothing is carried from step to step, so nothing about data order needs saving,
a resumed run sees what an uninterrupted one would have, and every process and
any number of devices agree. All functions run under `jax.jit`.
"""

from __future__ import annotations

import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import data
from paws_jax import errors
from paws_jax import text

# Streams of random numbers, each independent of the others.
_EPOCH_ORDER, _CLASS_ORDER, _SUPPORT_DRAW = 0, 1, 2
UNLABELLED_VIEWS, SUPPORT_VIEWS, INITIALIZATION, METHOD = 3, 4, 5, 6
_LABELLED_ORDER = 7


class LabelIndex(NamedTuple):
  """The labelled images of every class."""

  # [K, L] int32 ids of training images, -1 beyond a class's count.
  ids: data.Array
  # [K] int32, each between 1 and L.
  counts: data.Array


class LabelledStream(NamedTuple):
  """The labelled images in shuffled order, for the steps of a call."""

  # [m] int32 ids of training images; [m] int32, their classes.
  ids: data.Array
  labels: data.Array
  # [E, m] int32: the orders of the epochs that the call reads.
  orders: data.Array
  # Step of the call's first batch, and its first place in `orders`.
  first_step: data.Array
  first_place: data.Array


def label_index(
  labelled_ids: np.ndarray,
  labels: np.ndarray,
  *,
  class_names: tuple[str, ...],
) -> LabelIndex:
  """Groups labelled images by class.

  Args:
    labelled_ids: [m] ids of the labelled training images.
    labels: [n] class of every training image; only labelled ones are read.
    class_names: K names, for messages.

  Returns:
    The index, on the host.

  Raises:
    errors.InputError: when a class has no labelled image.
  """
  labelled_ids = np.sort(np.asarray(labelled_ids, np.int32))
  classes = np.asarray(labels)[labelled_ids]
  counts = np.bincount(classes, minlength=len(class_names)).astype(np.int32)
  if not counts.all():
    missing = [class_names[k] for k in np.flatnonzero(counts == 0)]
    raise errors.InputError(
      f"{len(missing)} of {len(class_names)} classes have no labelled image: "
      f"{text.first_few(missing, most=10)}. Label at least one of each, or "
      "leave the class out."
    )
  ids = np.full((len(class_names), counts.max()), -1, np.int32)
  for k, count in enumerate(counts):
    ids[k, :count] = labelled_ids[classes == k]
  return LabelIndex(ids=ids, counts=counts)


def check_support(
  index: LabelIndex,
  *,
  class_names: tuple[str, ...],
  classes_per_step: int,
  images_per_class: int,
  with_replacement: bool,
) -> None:
  """Refuses a support set that the labelled images cannot fill.

  Raises:
    errors.InputError: more classes per step than classes; or a class with fewer
      labelled images than `images_per_class` and no `with_replacement`.
  """
  num_classes = len(class_names)
  if classes_per_step > num_classes:
    raise errors.InputError(
      f"support.classes_per_step is {classes_per_step} but the data has "
      f"{num_classes} classes: lower it to at most {num_classes}."
    )
  counts = np.asarray(index.counts)
  if with_replacement or counts.min() >= images_per_class:
    return
  worst = int(counts.argmin())
  raise errors.InputError(
    f"class {class_names[worst]!r} has {counts[worst]} labelled images but "
    f"support.images_per_class is {images_per_class}: lower images_per_class, "
    "label more, or set support.with_replacement."
  )


def check_uniform(
  index: LabelIndex, *, batch_size: int, with_replacement: bool
) -> None:
  """Refuses a batch of more labelled images than there are.

  Raises:
    errors.InputError: more images than labelled ones and no `with_replacement`.
  """
  num_images = int(np.sum(index.counts))
  if batch_size > num_images and not with_replacement:
    raise errors.InputError(
      f"support.sampling is 'uniform' with {batch_size} images a step, but "
      f"{num_images} are labelled: set support.batch_size to at most that, "
      "label more, or set support.with_replacement."
    )


def stream_key(seed: int | jax.Array, stream: int) -> jax.Array:
  """Derives the PRNG key of a stream of random numbers.

  If the seed is known while tracing, the key is a constant of the program,
  which saves the compilation of a threefry loop.
  """
  with jax.ensure_compile_time_eval():
    return jax.random.fold_in(jax.random.key(seed), stream)


def epoch_order(
  num_images: int, *, seed: int | jax.Array, epoch: int | jax.Array
) -> jax.Array:
  """Draws the order in which an epoch visits the training images.

  Args:
    num_images: n.
    seed: the run's seed.
    epoch: from 0.

  Returns:
    [n] int32, a permutation of 0..n−1. A step takes the next batch of it; the
    rest after the last full batch is not visited in that epoch.
  """
  key = jax.random.fold_in(stream_key(seed, _EPOCH_ORDER), epoch)
  return jax.random.permutation(key, num_images).astype(jnp.int32)


def class_balanced_indices(
  index: LabelIndex,
  *,
  seed: int | jax.Array,
  step: int | jax.Array,
  classes_per_step: int,
  images_per_class: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Draws the support set of a step: the same number of images per class.

  Equal numbers are Assumption 1 of the paper (section 4, 2021). Classes walk a
  permutation of all K classes, floor(K / classes_per_step) steps a round, so
  that all are covered evenly. A class's images are drawn afresh in every step,
  without replacement; a class with n < images_per_class images gives each of
  them floor or ceil(images_per_class / n) times (`check_support` refuses that
  without `with_replacement`).

  Args:
    index: labelled images per class.
    seed: the run's seed.
    step: from 0.
    classes_per_step: C, at most K.
    images_per_class: k.

  Returns:
    ids [C·k] int32 of training images, class-major; labels [C·k] int32, their
    classes; class_ids [C] int32, the distinct classes drawn.
  """
  num_classes, most = index.ids.shape
  steps_per_round = num_classes // classes_per_step
  order_key = jax.random.fold_in(
    stream_key(seed, _CLASS_ORDER), step // steps_per_round
  )
  order = jax.random.permutation(order_key, num_classes).astype(jnp.int32)
  first = (step % steps_per_round) * classes_per_step
  class_ids = jax.lax.dynamic_slice(order, (first,), (classes_per_step,))

  step_key = jax.random.fold_in(stream_key(seed, _SUPPORT_DRAW), step)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, class_ids)
  scores = jax.vmap(lambda key: jax.random.uniform(key, (most,)))(keys)
  counts = jnp.asarray(index.counts)[class_ids][:, None]
  filled = jnp.arange(most)[None, :] < counts
  # Empty places sort last; the rest comes in random order.
  shuffled = jnp.argsort(jnp.where(filled, scores, 2.0), axis=-1)
  slots = jnp.arange(images_per_class)[None, :] % counts
  places = jnp.take_along_axis(shuffled, slots, axis=-1)
  ids = jnp.take_along_axis(jnp.asarray(index.ids)[class_ids], places, axis=-1)
  labels = jnp.repeat(class_ids, images_per_class)
  return ids.reshape(-1), labels, class_ids


def labelled_images(index: LabelIndex) -> tuple[np.ndarray, np.ndarray]:
  """Lists ids [m] and classes [m] of all labelled images, int32, on host."""
  ids, counts = map(np.asarray, index)
  labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
  return ids[ids >= 0], labels


def labelled_order(
  num_images: int, *, seed: int | jax.Array, epoch: int | jax.Array
) -> jax.Array:
  """Draws the order of the labelled images in one epoch: [m] int32."""
  key = jax.random.fold_in(stream_key(seed, _LABELLED_ORDER), epoch)
  return jax.random.permutation(key, num_images).astype(jnp.int32)


def uniform_start(
  step: int, *, num_images: int, batch_size: int
) -> tuple[int, int]:
  """Computes the labelled epoch, and the place in it, where a step begins.

  Steps follow each other without a gap: a batch may begin in one epoch and end
  in the next. Runs on the host, where large products do not overflow.

  Args:
    step: from 0.
    num_images: m labelled images.
    batch_size: N of them a step.
  """
  return divmod(step * batch_size, num_images)


def num_orders(num_steps: int, *, num_images: int, batch_size: int) -> int:
  """Computes the most labelled epochs that a call of some steps reads.

  Calls begin at multiples of `num_steps`.
  """
  num_rows = num_steps * batch_size
  latest_start = num_images - math.gcd(num_rows, num_images)
  return (latest_start + num_rows - 1) // num_images + 1


def uniform_indices(
  stream: LabelledStream, *, step: int | jax.Array, batch_size: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Selects the labelled images of a step, the next of a shuffled stream.

  A pure function of (seed, step) through the orders of the stream; on NumPy
  arrays it is computed on the host.

  Args:
    stream: of the call that contains the step.
    step: from 0.
    batch_size: N.

  Returns:
    ids [N] int32 of training images; labels [N] int32, their classes; slots
    [N] int32, which differ where an image is drawn twice.
  """
  num_images = stream.orders.shape[1]
  first = stream.first_place + (step - stream.first_step) * batch_size
  positions = first + np.arange(batch_size, dtype=np.int32)
  places = stream.orders.reshape(-1)[positions]
  slots = positions // num_images - first // num_images
  return stream.ids[places], stream.labels[places], slots


def view_numbers(slots: Any, num_views: int) -> Any:
  """Numbers the views of images that may be drawn several times.

  Args:
    slots: int32 [n], number of the draw of an image.
    num_views: V, of a draw.

  Returns:
    int32 [n, V], of NumPy or JAX as `slots`.
  """
  places = np.arange(num_views, dtype=np.int32)
  return slots[:, None] * np.int32(num_views) + places[None, :]


def view_keys(
  ids: jax.Array,
  views: jax.Array,
  *,
  seed: int | jax.Array,
  stream: int,
  step: int | jax.Array,
) -> jax.Array:
  """Derives one PRNG key per image and view, for any batch and device.

  Args:
    ids: [n] int32.
    views: [n, V] int32, number of each view of an image within the step.
    seed: the run's seed.
    stream: UNLABELLED_VIEWS or SUPPORT_VIEWS.
    step: from 0.

  Returns:
    [n, V] typed keys.
  """
  step_key = jax.random.fold_in(stream_key(seed, stream), step)
  fold = jax.random.fold_in
  image_keys = jax.vmap(fold, (None, 0))(step_key, ids)
  return jax.vmap(jax.vmap(fold, (None, 0)))(image_keys, views)
