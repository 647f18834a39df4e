"""Wrong labels on purpose: how a method learns from noisy ones.

They replace the labels of labelled training images once, the same in every run
with the same rate and seed; labels of other images and of the test stay true.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax.data.labels import split as split_lib


def choose(
  dataset: split_lib.Dataset, section: config_lib.Data, every_class: bool
) -> tuple[split_lib.Split, np.ndarray]:
  """Chooses labelled images, and replaces some of their labels.

  Args:
    dataset: the data, with true labels.
    section: `data` of a recipe.
    every_class: as of `split.choose`.

  Returns:
    The split, and the labels of all training images.

  Raises:
    UserError: as of `split.choose` and `apply`.
  """
  split = split_lib.choose(
    dataset,
    labels_per_class=section.labels_per_class,
    labels_fraction=section.labels_fraction,
    split_seed=section.split_seed,
    labels_file=section.labels_file,
    every_class=every_class,
  )
  labels, split = apply(
    dataset.train_labels,
    split,
    rate=section.label_noise,
    seed=section.label_noise_seed,
  )
  return split, labels


def apply(
  labels: np.ndarray,
  split: split_lib.Split,
  *,
  rate: float,
  seed: int,
) -> tuple[np.ndarray, split_lib.Split]:
  """Replaces labels with another class, drawn for each image.

  Args:
    labels: int32 [n] of the training images.
    split: which of them are labelled.
    rate: probability that a label is replaced; 0: all stay.
    seed: of the draw, which does not depend on which images are labelled.

  Returns:
    The labels, and the split with their counts, which names the noise.

  Raises:
    errors.InputError: there is one class, or one has no label left.
  """
  if not rate or not len(split.labelled_ids):
    return labels, split
  num_classes = len(split.class_counts)
  if num_classes < 2:
    raise errors.InputError(
      f"data.label_noise is {rate:g} but there is one class: a wrong label "
      "needs another one; set it to 0."
    )
  # Raw bits are the same in every version of NumPy.
  bits = np.random.Philox(key=seed).random_raw(2 * len(labels))
  draws = (bits[: len(labels)] >> np.uint64(11)) * 2.0**-53
  offsets = 1 + bits[len(labels) :] % np.uint64(num_classes - 1)
  others = (labels + offsets.astype(np.int64)) % num_classes
  replaced = np.zeros(len(labels), bool)
  replaced[split.labelled_ids] = True
  replaced &= draws < rate
  noisy = np.where(replaced, others, labels).astype(labels.dtype)
  counts = np.bincount(noisy[split.labelled_ids], minlength=num_classes)
  if not counts.all() and all(split.class_counts):
    raise errors.InputError(
      f"data.label_noise is {rate:g} and data.label_noise_seed {seed}: class "
      f"{np.argmin(counts)} has no label left; take another seed, a lower rate "
      "or more labels."
    )
  rule = f"{split.rule}, label_noise={rate:g} (seed {seed})"
  made = dataclasses.replace(
    split, class_counts=tuple(counts.tolist()), rule=rule
  )
  return noisy, made
