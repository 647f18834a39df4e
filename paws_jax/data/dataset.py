"""Section `data` of a recipe, made into images to train and to evaluate on."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from paws_jax import augment
from paws_jax import errors
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.data.host import evaluation_images
from paws_jax.data.host import pipeline
from paws_jax.data.labels import hidden as hidden_lib
from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog
from paws_jax.data.sources import folders
from paws_jax.data.sources import manifest

_PATHS = ("dir", "manifest", "labels_file", "unlabelled_dir", "test_dir")


@dataclasses.dataclass(frozen=True)
class DataConfig:
  """Section `data` of a recipe; fields are explained in config.base."""

  source: str
  dir: str
  tfds_name: str
  image_size: int
  labels_per_class: int
  labels_fraction: float
  split_seed: int
  labels_file: str
  include_labelled: bool
  pipeline: str
  manifest: str
  unlabelled_dir: str
  test_dir: str
  canvas_size: int
  on_bad_image: str
  max_pixels: int
  support_cache_mb: int

  def __post_init__(self):
    """Makes "~" at the start of a path the home directory."""
    for name in _PATHS:
      path = os.path.expanduser(getattr(self, name))
      object.__setattr__(self, name, path)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledImages:
  """Images with a label each, to be embedded and compared.

  Attributes:
    images: uint8 [n, H, W, Ch]: an array, or what has a shape, a length and
      slices like one.
    labels: int32 [n]; -1 for images without a label.
    name: what a reader calls the i-th image: a file name, or "test 17".
  """

  images: Any
  labels: np.ndarray
  name: Callable[[int], str]

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def readable(self) -> np.ndarray:
    """Bool [n]: False for images that turned out to be unreadable."""
    return getattr(self.images, "readable", np.ones(len(self), bool))


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
    unlabelled: training images whose label, if there is one, is not used;
      None: none.
    in_memory: whether the images of these parts are arrays.
    eval_views: how an image of `labelled` and `test` is cropped to embed it.
    resize: what is done to a batch [n, H, W, Ch] uint8 of them before that.
    make_pipeline: of (support, batch_size, seed, mesh, with_unlabelled), all by
      name; gives a pipeline as `in_memory.InMemory` is one. To train on some
      of the labelled images alone: labelled_ids, rows that supports are drawn
      of, and pool, rows that take the place of the unlabelled images.
    hidden: a sample of the training images whose label is known but not used,
      with that label; None: none. It is only for watching, see hidden_labels:
      no train step may ever see it.
    notices: lines that a user should see before training, such as how many
      images are left aside because their format is not read.
  """

  name: str
  class_names: tuple[str, ...]
  split: split_lib.Split
  labelled: LabelledImages
  validation: LabelledImages | None
  test: LabelledImages | None
  unlabelled: LabelledImages | None
  in_memory: bool
  eval_views: augment.ViewsConfig
  resize: Callable[[np.ndarray], np.ndarray]
  make_pipeline: Callable[..., Any]
  hidden: LabelledImages | None = None
  notices: tuple[str, ...] = ()

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
  arrays: arrays_lib.Arrays | None = None,
  every_class: bool = True,
) -> Dataset:
  """Reads a data set and chooses its labelled images.

  Args:
    config: section `data`.
    views: section `views`, for the evaluation crop.
    arrays: the data; default what `config` names.
    every_class: whether each class needs a labelled image; only those of a
      `labels_file` may be without.

  Raises:
    ValueError: whatever the data and the recipe disagree on.
    FileNotFoundError: data that is not there.
  """
  if config.pipeline == "host":
    return _on_disk(config, views, every_class)
  if arrays is None:
    arrays = arrays_lib.load(
      config.source, directory=config.dir, tfds_name=config.tfds_name
    )
  return _in_memory(arrays, config, views, every_class)


def _in_memory(
  arrays: arrays_lib.Arrays,
  config: DataConfig,
  views: augment.ViewsConfig,
  every_class: bool,
) -> Dataset:
  """A data set that is put on the devices whole."""
  resize = functools.partial(memory_pipeline.resize, side=config.image_size)
  images = resize(arrays.train_images)
  _check_images(arrays.name, images.shape[1:], views)
  split = _choose_split(arrays, config, every_class)
  ids = split.labelled_ids

  hidden = _hide_labels(arrays.train_labels, ids)
  watched = hidden_lib.sample_rows(arrays.train_labels, ids)

  def part(name, images, labels, rows):
    return LabelledImages(
      images[rows], labels[rows], lambda i: f"{name} {rows[i]}"
    )

  def make_pipeline(
    *,
    support: memory_pipeline.SupportConfig,
    labelled_ids: np.ndarray = ids,
    pool: np.ndarray | None = None,
    **options: Any,
  ):
    if pool is None:
      pool = _pool(len(images), ids, config.include_labelled)
    return memory_pipeline.InMemory(
      images,
      _label_index(arrays, labelled_ids, support),
      support=support,
      pool=pool,
      **options,
    )

  return Dataset(
    name=arrays.name,
    class_names=arrays.class_names,
    split=split,
    labelled=part("train", arrays.train_images, arrays.train_labels, ids),
    validation=None,
    test=part(
      "test",
      arrays.test_images,
      arrays.test_labels,
      np.arange(len(arrays.test_images)),
    ),
    unlabelled=part(
      "train", arrays.train_images, hidden, np.flatnonzero(hidden < 0)
    )
    if np.any(hidden < 0)
    else None,
    hidden=part("train", arrays.train_images, arrays.train_labels, watched)
    if len(watched)
    else None,
    in_memory=True,
    eval_views=views,
    resize=resize,
    make_pipeline=make_pipeline,
  )


def _on_disk(
  config: DataConfig, views: augment.ViewsConfig, every_class: bool
) -> Dataset:
  """A data set of encoded images, read when they are needed."""
  found = open_catalog(config)
  side = views.large_size
  _check_images(found.name, (side, side, 3), views)
  split = _choose_split(found, config, every_class)
  ids = split.labelled_ids
  labels = found.train.labels
  evaluated = functools.partial(
    evaluation_images.EvaluationImages,
    resize=views.eval_resize,
    size=side,
    max_pixels=config.max_pixels,
  )

  def held_out(part: catalog.Part | None) -> LabelledImages | None:
    if part is None:
      return None
    return LabelledImages(evaluated(part.images), part.labels, part.images.name)

  def chosen(rows: np.ndarray, labels: np.ndarray) -> LabelledImages:
    images = evaluated(
      found.train.images,
      rows=rows,
      leave_out_bad=config.on_bad_image == "skip",
    )
    return LabelledImages(
      images, labels[rows], lambda i: found.train.images.name(int(rows[i]))
    )

  def make_pipeline(
    *,
    support: memory_pipeline.SupportConfig,
    labelled_ids: np.ndarray = ids,
    pool: np.ndarray | None = None,
    **options: Any,
  ):
    # Labels go with a pool that is given: another image would bring its own.
    on_bad_image = config.on_bad_image if pool is None else "error"
    if pool is None:
      pool = _pool(len(labels), ids, config.include_labelled)
    return pipeline.HostPipeline(
      found.train.images,
      _label_index(found, labelled_ids, support),
      support=support,
      pool=pool,
      canvas_size=config.canvas_size,
      on_bad_image=on_bad_image,
      max_pixels=config.max_pixels,
      support_cache_mb=config.support_cache_mb,
      **options,
    )

  hidden = _hide_labels(labels, ids)
  others = np.flatnonzero(hidden < 0)
  watched = hidden_lib.sample_rows(labels, ids)
  return Dataset(
    name=found.name,
    class_names=found.class_names,
    split=split,
    labelled=chosen(ids, labels),
    validation=held_out(found.val),
    test=held_out(found.test),
    unlabelled=chosen(others, hidden) if len(others) else None,
    hidden=chosen(watched, labels) if len(watched) else None,
    in_memory=False,
    # They come as the squares that are embedded.
    eval_views=dataclasses.replace(views, eval_resize=0),
    resize=lambda images: images,
    make_pipeline=make_pipeline,
    notices=tuple(folders.notices(found.left_aside)),
  )


def open_catalog(config: DataConfig) -> catalog.Catalog:
  """Lists the images on disk that section `data` names; opens none of them.

  Raises:
    ValueError, FileNotFoundError: see `folders`, `manifest`, `tfds_records`.
  """
  if config.source == "tfds":
    from paws_jax.data.sources import tfds_records

    return tfds_records.load(config.dir, config.tfds_name)
  if config.manifest:
    return manifest.load(config.manifest, directory=config.dir)
  return folders.load(
    config.dir, unlabelled_dir=config.unlabelled_dir, test_dir=config.test_dir
  )


def _choose_split(
  dataset: split_lib.Dataset, config: DataConfig, every_class: bool
) -> split_lib.Split:
  return split_lib.choose(
    dataset,
    labels_per_class=config.labels_per_class,
    labels_fraction=config.labels_fraction,
    split_seed=config.split_seed,
    labels_file=config.labels_file,
    every_class=every_class,
  )


def _hide_labels(labels: np.ndarray, labelled_ids: np.ndarray) -> np.ndarray:
  """int32 [n]: -1 where the label of a training image is not to be used."""
  hidden = np.full_like(labels, catalog.UNLABELLED)
  hidden[labelled_ids] = labels[labelled_ids]
  return hidden


def _pool(
  num_images: int, labelled_ids: np.ndarray, include_labelled: bool
) -> np.ndarray:
  """int32 rows of the training set that serve as unlabelled images."""
  rows = np.arange(num_images, dtype=np.int32)
  return rows if include_labelled else np.delete(rows, labelled_ids)


def _label_index(
  dataset: split_lib.Dataset,
  labelled_ids: np.ndarray,
  support: memory_pipeline.SupportConfig,
) -> sampling.LabelIndex:
  """The labelled images of every class, enough of them for the supports."""
  names = dataset.class_names
  index = sampling.label_index(
    labelled_ids, dataset.train_labels, class_names=names
  )
  sampling.check_support(
    index,
    class_names=names,
    classes_per_step=support.classes_per_step,
    images_per_class=support.images_per_class,
    with_replacement=support.with_replacement,
  )
  return index


def _check_images(
  name: str, shape: tuple[int, int, int], views: augment.ViewsConfig
) -> None:
  """Refuses statistics and crops that the images cannot have."""
  height, width, channels = shape
  if len(views.mean) != channels or len(views.std) != channels:
    raise errors.InputError(
      f"views.mean and views.std have {len(views.mean)} and {len(views.std)} "
      f"values but {name} has {channels} channels: give one per channel."
    )
  short = views.eval_resize or min(height, width)
  if short < views.large_size:
    raise errors.InputError(
      f"views.large_size is {views.large_size} but the short side of an "
      f"evaluation image is {short}: set views.eval_resize to at least "
      "large_size."
    )
