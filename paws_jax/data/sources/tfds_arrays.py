"""A prepared TFDS data set, decoded into memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from paws_jax import errors
from paws_jax.data.sources import tfds_builders


def load(directory: str, tfds_name: str) -> dict[str, Any]:
  """Reads the splits train and test (or validation) of a prepared builder.

  Args:
    directory: as in `tfds_builders.open_builder`.
    tfds_name: as in `tfds_builders.open_builder`.

  Returns:
    The fields of `arrays.Arrays`.

  Raises:
    FileNotFoundError: the data set is not prepared; gives the command.
    ValueError: an unknown name, or not an image classification data set with
      images of one size.
  """
  builder = tfds_builders.open_builder(directory, tfds_name)
  name = builder.info.full_name
  features = builder.info.features
  tfds_builders.check_features(name, features)
  known = list(builder.info.splits)
  test = "validation" if known and "test" not in known else "test"
  parts: dict[str, np.ndarray] = {}
  for split, part in (("train", "train"), (test, "test")):
    if known and split not in known:
      raise errors.InputError(
        f"{name} has the splits {known}, but needs train, and test or "
        "validation: choose another data set"
      )
    images, labels = _read_split(builder, split)
    parts[f"{part}_images"], parts[f"{part}_labels"] = images, labels
  names = tuple(features["label"].names)
  return {"name": name, "class_names": names, **parts}


def _read_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns images uint8 [n, H, W, C] and labels int32 [n] of a split.

  Rows are in the order of the feature `id` where there is one (cifar10 and
  cifar100: row i is the i-th image of the original files, to which published
  lists of labelled images refer), else in the order of the prepared files.
  """
  import tensorflow_datasets as tfds

  keys = [k for k in ("image", "label", "id") if k in builder.info.features]
  try:
    dataset = builder.as_dataset(
      split=split, read_config=tfds.ReadConfig(try_autocache=False)
    )
  except AssertionError as error:  # TFDS raises it where there are no files
    raise errors.MissingFileError(
      tfds_builders.how_to_prepare(builder)
    ) from error
  dataset = dataset.map(lambda row: {key: row[key] for key in keys})
  # Where the builder fixes the shape, batches cost a tenth of single rows.
  fixed = dataset.element_spec["image"].shape.is_fully_defined()
  batches = []
  for batch in dataset.batch(1024 if fixed else 1).as_numpy_iterator():
    shape = batch["image"].shape[1:]
    batches.append(batch)
    if shape != batches[0]["image"].shape[1:]:
      raise errors.InputError(
        f"{builder.info.full_name}, split {split}: image {len(batches) - 1} "
        f"is {shape}, but image 0 is {batches[0]['image'].shape[1:]} "
        "[H, W, C]: in memory all images need the same shape: resize them when "
        "preparing the data set"
      )
  rows = {k: np.concatenate([batch[k] for batch in batches]) for k in keys}
  if "id" in rows:
    order = np.argsort(rows["id"], kind="stable")
    rows = {key: values[order] for key, values in rows.items()}
  return rows["image"], rows["label"].astype(np.int32)
