"""What fine-tuning chooses on: labelled images that it is not trained on.

Never test images. Section 5 of the paper chooses on 12,000 more labelled
training images; who has no more labels gives up a part of those there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from paws_jax import config as config_lib
from paws_jax import errors
from paws_jax import text
from paws_jax.data import dataset as dataset_lib
from paws_jax.data import load_dataset
from paws_jax.data.labels import copies
from paws_jax.data.labels import draw
from paws_jax.data.labels import split
from paws_jax.data.sources import catalog

_MOST_LISTED = 10


@dataclasses.dataclass(frozen=True, eq=False)
class HoldOut:
  """How the labelled images are parted.

  Attributes:
    labelled_ids: int32 [m] rows of the training set that are labelled and can
      be read, ascending.
    ids: int32 [n] those of them to train on, ascending.
    fit: the same images, to be evaluated.
    scored: the images that are held out; None: none.
    hash: of the rows that are held out and the data; None: none.
  """

  labelled_ids: np.ndarray
  ids: np.ndarray
  fit: dataset_lib.LabelledImages
  scored: dataset_lib.LabelledImages | None
  hash: str | None


class Rows:
  """Some rows of images, themselves an array or like one; reads on slicing."""

  def __init__(self, images: Any, places: np.ndarray):
    """Keeps them.

    Args:
      images: uint8 [n, H, W, Ch], as `dataset.LabelledImages` has them.
      places: int [m].
    """
    self._images = images
    self._places = places

  def __len__(self) -> int:
    return len(self._places)

  def __getitem__(self, key: Any) -> np.ndarray:
    return self._images[self._places[key]]

  @property
  def readable(self) -> np.ndarray:
    """Bool [m]: False for images that turned out to be unreadable."""
    everywhere = np.ones(len(self._images), bool)
    return getattr(self._images, "readable", everywhere)[self._places]

  def share_unreadable(self, gather: Callable[[Any], list[Any]]) -> None:
    """As of `evaluation_images.EvaluationImages`."""
    if hasattr(self._images, "share_unreadable"):
      self._images.share_unreadable(gather)


def part(
  labelled: dataset_lib.LabelledImages, places: np.ndarray
) -> dataset_lib.LabelledImages:
  """Some of the images: int [m] places among them."""
  return dataset_lib.LabelledImages(
    Rows(labelled.images, places),
    labelled.labels[places],
    lambda i: labelled.name(int(places[i])),
    lambda: copies.among(labelled.copies, places),
  )


def create(
  recipe: config_lib.Recipe,
  dataset: dataset_lib.Dataset,
  readable: np.ndarray | None = None,
) -> HoldOut:
  """Parts the labelled images as section `finetune` says.

  Args:
    recipe: the recipe.
    dataset: its data.
    readable: bool [n], which labelled images can be read; None: all.

  Raises:
    ValueError: when a class has no labelled image that can be read, or one,
      which cannot be both; or the file of held out images is wrong, or lists
      images of the split.
    FileNotFoundError: there is no such file.
  """
  kind = recipe.finetune.holdout
  labelled, ids = _readable(dataset, readable)
  if kind == "stratified":
    held = _stratified(recipe, dataset, labelled)
    kept = np.setdiff1d(np.arange(len(labelled)), held)
    return HoldOut(
      labelled_ids=ids,
      ids=ids[kept],
      fit=part(labelled, kept),
      scored=part(labelled, held),
      hash=split.split_hash(dataset.split.fingerprint, ids[held]),
    )
  everything = HoldOut(
    labelled_ids=ids, ids=ids, fit=labelled, scored=None, hash=None
  )
  if kind == "none":
    return everything
  others = _from_file(recipe, dataset)
  scored, kept = others.labelled, others.split.labelled_ids
  copied = _copied(dataset, kept)
  if copied.any():
    names = [scored.name(int(i)) for i in np.flatnonzero(copied)]
    print(
      f"finetune.holdout_file: {len(names)} of {len(scored)} images are left "
      "out, since they are copies of images that are trained on: "
      + text.first_few(names)
    )
    scored, kept = part(scored, np.flatnonzero(~copied)), kept[~copied]
  return dataclasses.replace(
    everything,
    scored=scored,
    hash=split.split_hash(dataset.split.fingerprint, kept),
  )


def _copied(dataset: dataset_lib.Dataset, held: np.ndarray) -> np.ndarray:
  """Bool [m]: rows with the contents of a labelled image; not all of them.

  Raises:
    ValueError: when all are.
  """
  trained = dataset.split.labelled_ids
  first = dataset.find_copies(np.concatenate([trained, held]))
  copied = first[len(trained) :] < len(trained)
  if copied.all():
    raise errors.InputError(
      f"each of the {len(held)} images in finetune.holdout_file is a copy of a "
      "labelled image, which is trained on: list other images."
    )
  return copied


def _readable(
  dataset: dataset_lib.Dataset, readable: np.ndarray | None
) -> tuple[dataset_lib.LabelledImages, np.ndarray]:
  """The labelled images that can be read, and their rows."""
  labelled, ids = dataset.labelled, dataset.split.labelled_ids
  if readable is None or readable.all():
    return labelled, ids
  places = np.flatnonzero(readable)
  draw.class_counts(
    f"what can be read of data set {dataset.name!r}",
    labelled.labels[places],
    num_classes=dataset.num_classes,
    class_names=dataset.class_names,
  )
  return part(labelled, places), ids[places]


def _stratified(
  recipe: config_lib.Recipe,
  dataset: dataset_lib.Dataset,
  labelled: dataset_lib.LabelledImages,
) -> np.ndarray:
  """Places of the held out images: a share of each class, at least one.

  Images with the same contents are drawn as one, and stay on one side.
  """
  first = labelled.copies
  labels = np.where(
    first == np.arange(len(first)), labelled.labels, catalog.UNLABELLED
  )
  # Rows without a label are never drawn.
  counts = np.bincount(labels[labels >= 0], minlength=dataset.num_classes)
  share = recipe.finetune.holdout_fraction
  # As many as `draws.stratified` takes.
  held = np.maximum(1, np.round(share * counts))
  short = np.flatnonzero(held >= counts)
  if len(short):
    names = [f"{dataset.class_names[k]!r} ({counts[k]})" for k in short]
    raise errors.InputError(
      f"finetune.holdout is 'stratified' with finetune.holdout_fraction = "
      f"{share:g}, which leaves nothing to train on of {len(short)} of "
      f"{dataset.num_classes} classes, given with their numbers of different "
      f"labelled images: {text.first_few(names, most=_MOST_LISTED)}. Label "
      "at least 2 of each class; or set finetune.holdout to 'none' and "
      "finetune.learning_rates to one value; or give other labelled training "
      "images as finetune.holdout_file, with holdout 'paper'."
    )
  drawn = draw.stratified(
    labels,
    labels_per_class=0,
    labels_fraction=share,
    split_seed=recipe.data.split_seed,
    num_classes=dataset.num_classes,
    class_names=dataset.class_names,
  )
  return np.flatnonzero(np.isin(first, drawn)).astype(np.int32)


def _from_file(
  recipe: config_lib.Recipe, dataset: dataset_lib.Dataset
) -> dataset_lib.Dataset:
  """The data set once more, with the listed images as the labelled ones."""
  file = recipe.finetune.holdout_file
  section = dataclasses.replace(
    recipe.data, labels_file=file, labels_per_class=0, labels_fraction=0.0
  )
  try:
    others = load_dataset.load(section, recipe.views, every_class=False)
  except (ValueError, FileNotFoundError) as error:
    # It reads the file as if it were that of the split.
    message = str(error).replace("data.labels_file", "finetune.holdout_file")
    raise type(error)(message) from error
  if not len(others.labelled):
    raise errors.InputError(
      f"finetune.holdout_file = {file!r} lists no image: list labelled "
      "training images that are not trained on, one a line."
    )
  both = np.intersect1d(
    dataset.split.labelled_ids, others.split.labelled_ids
  ).tolist()
  if both:
    raise errors.InputError(
      f"finetune.holdout_file = {file!r} lists {len(both)} of the "
      f"{len(dataset.labelled)} labelled images, which are trained on; the "
      f"first is row {both[0]} of the training set: remove them from the list."
    )
  return others
