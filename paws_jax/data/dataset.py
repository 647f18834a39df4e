"""A data set with its split: the images to train and to evaluate on."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax.data.labels import split as split_lib


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledImages:
  """Images with a label each, to be embedded and compared.

  Attributes:
    images: uint8 [n, H, W, Ch]: an array, or an object with the shape, length
      and slices of one.
    labels: int32 [n]; -1 for images without a label.
    name: maps i to the name of the i-th image: a file name, or "test 17".
    find_copies: returns what `copies` holds; None: there are no copies.
  """

  images: Any
  labels: np.ndarray
  name: Callable[[int], str]
  find_copies: Callable[[], np.ndarray] | None = None

  def __len__(self) -> int:
    return len(self.labels)

  @property
  def readable(self) -> np.ndarray:
    """Bool [n]: False for images that could not be read when last sliced."""
    return getattr(self.images, "readable", np.ones(len(self), bool))

  @functools.cached_property
  def copies(self) -> np.ndarray:
    """Int [n]: the first image with the same contents; found when needed."""
    if self.find_copies is None:
      return np.arange(len(self))
    return self.find_copies()


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A data set with its split, in memory or on disk.

  Attributes:
    name: for messages: "digits", "cifar10/3.0.2".
    class_names: one for each class, in the order of the labels.
    split: the rows of the labelled training images.
    labelled: those images.
    validation: images on which accuracy is measured while training; None:
      there are none.
    test: images on which accuracy is reported; None: there are none.
    unlabelled: training images whose label, if there is one, is not used;
      None: there are none.
    in_memory: whether the images of these parts are arrays.
    eval_view: how an image of `labelled` and `test` is cropped to embed it.
    resize: applied to a batch of them, uint8 [n, H, W, Ch], before that.
    make_pipeline: takes (support, batch_size, seed, mesh, with_unlabelled) by
      name, and returns a pipeline with the interface of
      `memory_pipeline.InMemory`. To train on a subset of the labelled images
      alone it also takes labelled_ids, the rows from which supports are drawn,
      and pool, the rows that replace the unlabelled images.
    hidden: a sample of the training images whose label is known but not used,
      with that label; None: there are none. It serves to monitor a run, see
      `training.pseudo_labels`: no train step may see it.
    notices: lines that a user should see before training, such as the number
      of images ignored because their format is not read.
  """

  name: str
  class_names: tuple[str, ...]
  split: split_lib.Split
  labelled: LabelledImages
  validation: LabelledImages | None
  test: LabelledImages | None
  unlabelled: LabelledImages | None
  in_memory: bool
  eval_view: config_lib.EvalView
  resize: Callable[[np.ndarray], np.ndarray]
  make_pipeline: Callable[..., Any]
  # All training images, in the order of their ids: arrays, or read on demand.
  train_images: Any
  # Of all training images, int32 [n], as the data set has them; negative where
  # it has none. For monitoring alone, as `hidden`: see `training.purity`.
  true_labels: np.ndarray
  # Takes rows of the training set; see `labels.copies`.
  find_copies: Callable[[np.ndarray], np.ndarray]
  # Takes rows of the training set; a hash of each, of 16 bytes.
  digests: Callable[[np.ndarray], list[bytes]]
  hidden: LabelledImages | None = None
  notices: tuple[str, ...] = ()

  @property
  def num_classes(self) -> int:
    """Number of classes, including any without an image."""
    return len(self.class_names)

  @property
  def crop_shape(self) -> tuple[int, int, int]:
    """[H, W, Ch] of the crops that are embedded in evaluation."""
    side = self.eval_view.eval_size
    return side, side, self.train_images.shape[-1]

  @property
  def known_labels(self) -> np.ndarray:
    """Labels that training may use, -1 of other images: int32 [n]."""
    labels = np.full(len(self.train_images), -1, np.int32)
    labels[self.split.labelled_ids] = self.labelled.labels
    return labels

  @property
  def monitored_part(self) -> str:
    """Name of the part on which accuracy is measured while training."""
    for part in ("validation", "test"):
      if getattr(self, part) is not None:
        return part
    return "labelled"
