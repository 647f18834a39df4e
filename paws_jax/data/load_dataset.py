"""Read a data set and choose its labelled images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data import dataset as dataset_lib
from paws_jax.data import make_pipeline
from paws_jax.data import memory_pipeline
from paws_jax.data.host import evaluation_images
from paws_jax.data.labels import copies
from paws_jax.data.labels import hidden as hidden_lib
from paws_jax.data.labels import noise
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog
from paws_jax.data.sources import folders
from paws_jax.data.sources import manifest


def load(
  config: config_lib.Data,
  views: config_lib.Views,
  *,
  arrays: arrays_lib.Arrays | None = None,
  every_class: bool = True,
) -> dataset_lib.Dataset:
  """Reads a data set and chooses its labelled images.

  Args:
    config: section `data`.
    views: section `views`, for the evaluation crop.
    arrays: the data; by default those that `config` names.
    every_class: whether each class needs a labelled image; False allows a
      `labels_file` that leaves classes out.

  Raises:
    ValueError: the data and the recipe contradict each other.
    FileNotFoundError: a file or directory is missing.
  """
  config = config.with_home()
  if config.pipeline == "host":
    return _on_disk(config, views, every_class)
  if arrays is None:
    arrays = arrays_lib.load(
      config.source, directory=config.dir, tfds_name=config.tfds_name
    )
  return _in_memory(arrays, config, views, every_class)


def _in_memory(
  arrays: arrays_lib.Arrays,
  config: config_lib.Data,
  views: config_lib.Views,
  every_class: bool,
) -> dataset_lib.Dataset:
  """Makes a data set whose images are kept on the devices."""
  resize = functools.partial(memory_pipeline.resize, side=config.image_size)
  images = resize(arrays.train_images)
  _check_images(arrays.name, images.shape[1:], views)
  split, labels = noise.choose(arrays, config, every_class)
  ids, true_labels = split.labelled_ids, arrays.train_labels
  if config.label_noise:
    arrays = dataclasses.replace(arrays, train_labels=labels)

  def find_copies(rows: np.ndarray) -> np.ndarray:
    return copies.of_arrays(arrays.train_images[rows])

  def train_part(
    rows: np.ndarray, labels: np.ndarray
  ) -> dataset_lib.LabelledImages:
    return dataset_lib.LabelledImages(
      arrays.train_images[rows],
      labels[rows],
      lambda i: f"train {rows[i]}",
      lambda: find_copies(rows),
    )

  test = dataset_lib.LabelledImages(
    arrays.test_images, arrays.test_labels, lambda i: f"test {i}"
  )
  return dataset_lib.Dataset(
    name=arrays.name,
    class_names=arrays.class_names,
    split=split,
    **_train_parts(train_part, labels, ids),
    validation=None,
    test=test if len(test) else None,
    in_memory=True,
    train_images=arrays.train_images,
    true_labels=true_labels,
    find_copies=find_copies,
    digests=functools.partial(copies.array_digests, images),
    eval_view=views.evaluation,
    resize=resize,
    make_pipeline=functools.partial(
      make_pipeline.in_memory, images, arrays, ids, config.include_labelled
    ),
  )


def _on_disk(
  config: config_lib.Data, views: config_lib.Views, every_class: bool
) -> dataset_lib.Dataset:
  """Makes a data set of encoded images, each read when it is needed."""
  listing = open_catalog(config)
  side = views.evaluation.eval_size
  _check_images(listing.name, (side, side, 3), views)
  split, labels = noise.choose(listing, config, every_class)
  true_labels = listing.train.labels
  train = dataclasses.replace(listing.train, labels=labels)
  listing = dataclasses.replace(listing, train=train)
  ids = split.labelled_ids
  evaluation = functools.partial(
    evaluation_images.EvaluationImages,
    resize=views.eval_resize,
    size=side,
    max_pixels=config.max_pixels,
    white_level=config.white_level,
  )
  train_images = functools.partial(
    evaluation,
    listing.train.images,
    leave_out_bad=config.on_bad_image == "skip",
  )
  find_copies = functools.partial(copies.of_files, listing.train.images)

  def train_part(
    rows: np.ndarray, labels: np.ndarray
  ) -> dataset_lib.LabelledImages:
    return dataset_lib.LabelledImages(
      train_images(rows=rows),
      labels[rows],
      lambda i: listing.train.images.name(int(rows[i])),
      lambda: find_copies(rows),
    )

  return dataset_lib.Dataset(
    name=listing.name,
    class_names=listing.class_names,
    split=split,
    **_train_parts(train_part, labels, ids),
    validation=_held_out(listing.val, evaluation),
    test=_held_out(listing.test, evaluation),
    in_memory=False,
    train_images=train_images(),
    true_labels=true_labels,
    find_copies=find_copies,
    digests=functools.partial(copies.file_digests, listing.train.images),
    # They are already the squares to embed.
    eval_view=dataclasses.replace(views.evaluation, eval_resize=0),
    resize=lambda images: images,
    make_pipeline=functools.partial(
      make_pipeline.on_disk, listing, config, ids
    ),
    notices=_notices(listing),
  )


def _held_out(
  part: catalog.Part | None, evaluation: Callable[..., Any]
) -> dataset_lib.LabelledImages | None:
  """Returns validation or test images; None if there are none."""
  if part is None:
    return None
  return dataset_lib.LabelledImages(
    evaluation(part.images), part.labels, part.images.name
  )


def _notices(listing: catalog.Catalog) -> tuple[str, ...]:
  """Returns what a user should see before training."""
  return (
    *folders.notices(listing.other_files),
    *listing.notices,
    *(f"warning: {line}" for line in listing.warnings),
  )


def open_catalog(config: config_lib.Data) -> catalog.Catalog:
  """Lists the images on disk that section `data` names, without opening any.

  Raises:
    ValueError, FileNotFoundError: see `folders`, `manifest`, `tfds_records`.
  """
  config = config.with_home()
  if config.source == "tfds":
    from paws_jax.data.sources import tfds_records

    return tfds_records.load(config.dir, config.tfds_name)
  if config.manifest:
    return manifest.load(
      config.manifest,
      directory=config.dir,
      test_dir=config.test_dir,
      real_labels=config.real_labels,
    )
  return folders.load(
    config.dir,
    unlabelled_dir=config.unlabelled_dir,
    test_dir=config.test_dir,
    real_labels=config.real_labels,
  )


def _train_parts(
  part: Callable[[np.ndarray, np.ndarray], dataset_lib.LabelledImages],
  labels: np.ndarray,
  labelled_ids: np.ndarray,
) -> dict[str, Any]:
  """Returns the fields of a `Dataset` with training images.

  Args:
    part: takes rows, and the labels of all images; returns those of the rows.
    labels: int32 [n] of the training images.
    labelled_ids: int [m], rows whose label may be used.
  """
  used = np.full_like(labels, catalog.UNLABELLED)
  used[labelled_ids] = labels[labelled_ids]
  unlabelled = part(np.flatnonzero(used < 0), used)
  hidden = part(hidden_lib.sample_rows(labels, labelled_ids), labels)
  return {
    "labelled": part(labelled_ids, labels),
    "unlabelled": unlabelled if len(unlabelled) else None,
    "hidden": hidden if len(hidden) else None,
  }


def _check_images(
  name: str, shape: tuple[int, int, int], views: config_lib.Views
) -> None:
  """Refuses statistics and crops that the images cannot have."""
  height, width, channels = shape
  if len(views.mean) != channels or len(views.std) != channels:
    raise errors.InputError(
      f"views.mean and views.std have {len(views.mean)} and {len(views.std)} "
      f"values but {name} has {channels} channels"
      + (" (grey files are read in color, too)" if channels == 3 else "")
      + f": give one per channel, e.g. views.mean={(0.5,) * channels} and "
      f"views.std={(0.25,) * channels}."
    )
  short = views.eval_resize or min(height, width)
  name, size = views.evaluation_size
  if short < size:
    raise errors.InputError(
      f"{name} is {size} but the short side of an evaluation image is {short}: "
      f"set views.eval_resize to at least {size}."
    )
