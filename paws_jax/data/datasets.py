"""Section `data` of a recipe, made into images to train and to evaluate on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from paws_jax import augment
from paws_jax import resample
from paws_jax.data import in_memory
from paws_jax.data import sampling
from paws_jax.data import sources
from paws_jax.data import splits

_RESIZED_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Section `data` of a recipe; fields are explained in config.base."""

  source: str
  dir: str
  tfds_name: str
  image_size: int
  labels_per_class: int
  split_seed: int
  labels_file: str
  include_labelled: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Labelled:
  """Images with a label each, to be embedded and compared.

  Attributes:
    images: uint8 [n, H, W, Ch]: an array, or what has a shape, a length and
      slices like one.
    labels: int32 [n].
  """

  images: Any
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.labels)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set with its split, wherever the images lie.

  Attributes:
    name: for readers: "digits", "cifar10/3.0.2".
    class_names: one for each class, in the order of the labels.
    split: which training images are labelled.
    labelled: those images.
    validation: images to watch an accuracy on while training; None: none.
    test: the images to report an accuracy on; None: none.
    in_memory: whether the images of these parts are arrays.
    eval_views: how an image of `labelled` and `test` is cropped to embed it.
    resize: what is done to a batch [n, H, W, Ch] uint8 of them before that.
    make_pipeline: of (support, batch_size, seed, mesh, with_unlabelled), all by
      name; gives a pipeline as `in_memory.InMemory` is one.
  """

  name: str
  class_names: tuple[str, ...]
  split: splits.Split
  labelled: Labelled
  validation: Labelled | None
  test: Labelled | None
  in_memory: bool
  eval_views: augment.ViewsConfig
  resize: Callable[[np.ndarray], np.ndarray]
  make_pipeline: Callable[..., Any]

  @property
  def num_classes(self) -> int:
    """Number of classes, including any without an image."""
    return len(self.class_names)

  @property
  def watched(self) -> str:
    """The part whose accuracy is shown while training."""
    for part in ("validation", "test"):
      if getattr(self, part) is not None:
        return part
    return "labelled"


def load(
  config: DataConfig,
  views: augment.ViewsConfig,
  *,
  arrays: sources.Arrays | None = None,
) -> Dataset:
  """Reads a data set and chooses its labelled images.

  Args:
    config: section `data`.
    views: section `views`, for the evaluation crop.
    arrays: the data; default what `config` names.

  Raises:
    ValueError: whatever the data and the recipe disagree on.
    FileNotFoundError: data that is not there.
  """
  if arrays is None:
    arrays = sources.load(
      config.source, directory=config.dir, tfds_name=config.tfds_name
    )
  resize = functools.partial(_resize, side=config.image_size)
  images = resize(arrays.train_images)
  _check_images(arrays.name, images, views)
  split = splits.choose(
    arrays,
    labels_per_class=config.labels_per_class,
    split_seed=config.split_seed,
    labels_file=config.labels_file,
  )
  ids = split.labelled_ids

  def make_pipeline(*, support: in_memory.SupportConfig, **options: Any):
    return in_memory.InMemory(
      images,
      _label_index(split, arrays.train_labels, arrays.class_names, support),
      support=support,
      pool=_pool(len(images), ids, config.include_labelled),
      **options,
    )

  return Dataset(
    name=arrays.name,
    class_names=arrays.class_names,
    split=split,
    labelled=Labelled(arrays.train_images[ids], arrays.train_labels[ids]),
    validation=None,
    test=Labelled(arrays.test_images, arrays.test_labels),
    in_memory=True,
    eval_views=views,
    resize=resize,
    make_pipeline=make_pipeline,
  )


def _pool(
  num_images: int, labelled_ids: np.ndarray, include_labelled: bool
) -> np.ndarray:
  """int32 rows of the training set that serve as unlabelled images."""
  rows = np.arange(num_images, dtype=np.int32)
  return rows if include_labelled else np.delete(rows, labelled_ids)


def _label_index(
  split: splits.Split,
  labels: np.ndarray,
  class_names: tuple[str, ...],
  support: in_memory.SupportConfig,
) -> sampling.LabelIndex:
  """The labelled images of every class, enough of them for the supports."""
  index = sampling.label_index(
    split.labelled_ids, labels, class_names=class_names
  )
  sampling.check_support(
    index,
    class_names=class_names,
    classes_per_step=support.classes_per_step,
    images_per_class=support.images_per_class,
    with_replacement=support.with_replacement,
  )
  return index


def _resize(images: np.ndarray, side: int) -> np.ndarray:
  """[n, H, W, Ch] uint8 -> [n, side, side, Ch] uint8; side 0: as they are."""
  if side == 0 or images.shape[1:3] == (side, side):
    return images
  starts = range(0, len(images), _RESIZED_AT_ONCE)
  parts = [
    _resize_batch(images[i : i + _RESIZED_AT_ONCE], side=side) for i in starts
  ]
  return np.concatenate([np.asarray(part) for part in parts])


@jax.jit(static_argnames="side")
def _resize_batch(images: jax.Array, *, side: int) -> jax.Array:
  whole = jnp.asarray([[0, 0, *images.shape[1:3]]], jnp.int32)
  boxes = jnp.broadcast_to(whole, (len(images), 4))
  resized = resample.crop_and_resize(images, boxes, size=side)
  return jnp.round(resized).astype(jnp.uint8)


def _check_images(
  name: str, images: np.ndarray, views: augment.ViewsConfig
) -> None:
  """Refuses statistics and crops that the images cannot have."""
  height, width, channels = images.shape[1:]
  if len(views.mean) != channels or len(views.std) != channels:
    raise ValueError(
      f"views.mean and views.std have {len(views.mean)} and {len(views.std)} "
      f"values but {name} has {channels} channels: give one per channel."
    )
  short = views.eval_resize or min(height, width)
  if short < views.large_size:
    raise ValueError(
      f"views.large_size is {views.large_size} but the short side of an "
      f"evaluation image is {short}: set views.eval_resize to at least "
      "large_size."
    )
