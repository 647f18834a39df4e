"""Make the pipeline of a data set: of its images, or of their features."""

from __future__ import annotations

from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax.data import feature_pipeline
from paws_jax.data import memory_pipeline
from paws_jax.data import sampling
from paws_jax.data.host import pipeline
from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import catalog


def in_memory(
  images: np.ndarray | None,
  arrays: split_lib.Dataset,
  all_labelled_ids: np.ndarray,
  include_labelled: bool,
  *,
  support: config_lib.Support | None,
  labelled_ids: np.ndarray | None = None,
  pool: np.ndarray | None = None,
  features: feature_pipeline.Stored | None = None,
  **options: Any,
) -> memory_pipeline.InMemory:
  """Makes the pipeline of a data set in memory; see `dataset.Dataset`.

  Args:
    images: [n, S, S', Ch] uint8; unused with features.
    arrays: the labels.
    all_labelled_ids: rows of the labelled images.
    include_labelled: whether these serve as unlabelled images, too.
    support: the recipe's section; None: no labelled images.
    labelled_ids: rows from which supports are drawn; default all.
    pool: rows that replace the unlabelled images.
    features: of a frozen trunk, to serve in place of images.
    **options: as of the pipeline.
  """
  if labelled_ids is None:
    labelled_ids = all_labelled_ids
  if pool is None:
    num_images = len(arrays.train_labels)
    pool = _pool(num_images, all_labelled_ids, include_labelled)
  of_images = features is None
  kind = (
    memory_pipeline.InMemory if of_images else feature_pipeline.FeaturePipeline
  )
  return kind(
    images if of_images else features,
    _label_index(arrays, labelled_ids, support),
    support=support,
    pool=pool,
    **options,
  )


def on_disk(
  listing: catalog.Catalog,
  config: config_lib.Data,
  all_labelled_ids: np.ndarray,
  *,
  support: config_lib.Support | None,
  labelled_ids: np.ndarray | None = None,
  pool: np.ndarray | None = None,
  features: feature_pipeline.Stored | None = None,
  **options: Any,
) -> pipeline.HostPipeline | memory_pipeline.InMemory:
  """Makes the pipeline of a data set on disk; arguments as of `in_memory`."""
  if features is not None:
    return in_memory(
      None,
      listing,
      all_labelled_ids,
      config.include_labelled,
      support=support,
      labelled_ids=labelled_ids,
      pool=pool,
      features=features,
      **options,
    )
  if labelled_ids is None:
    labelled_ids = all_labelled_ids
  # Labels go with a given pool: a substitute would have another label.
  on_bad_image = config.on_bad_image if pool is None else "error"
  if pool is None:
    pool = _pool(
      len(listing.train.labels), all_labelled_ids, config.include_labelled
    )
  return pipeline.HostPipeline(
    listing.train.images,
    _label_index(listing, labelled_ids, support),
    support=support,
    pool=pool,
    canvas_size=config.canvas_size,
    on_bad_image=on_bad_image,
    max_pixels=config.max_pixels,
    white_level=config.white_level,
    support_cache_mb=config.support_cache_mb,
    decoder=config.decoder,
    in_host_memory=config.canvas_memory == "host",
    **options,
  )


def _pool(
  num_images: int, labelled_ids: np.ndarray, include_labelled: bool
) -> np.ndarray:
  """Rows of the training set that serve as unlabelled images, int32."""
  rows = np.arange(num_images, dtype=np.int32)
  return rows if include_labelled else np.delete(rows, labelled_ids)


def _label_index(
  dataset: split_lib.Dataset,
  labelled_ids: np.ndarray,
  support: config_lib.Support | None,
) -> sampling.LabelIndex | None:
  """Groups the labelled images by class; refuses too few for the supports."""
  if support is None:
    return None
  names = dataset.class_names
  index = sampling.label_index(
    labelled_ids, dataset.train_labels, class_names=names
  )
  if support.sampling == "uniform":
    sampling.check_uniform(
      index,
      batch_size=support.num_images,
      with_replacement=support.with_replacement,
    )
    return index
  sampling.check_support(
    index,
    class_names=names,
    classes_per_step=support.classes_per_step,
    images_per_class=support.images_per_class,
    with_replacement=support.with_replacement,
  )
  return index
