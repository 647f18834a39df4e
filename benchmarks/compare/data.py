"""Images of a comparison, some of which may be of classes nobody has labelled.

With unknown classes, labelled and test images are of the first classes alone,
unlabelled images of all. Known test images measure the accuracy; the others are
what an image of no known class looks like.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile

import ml_collections
import numpy as np

from paws_jax import config as config_lib
from paws_jax.data.labels import draw
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.training import experiment as experiment_lib

# Labelled images of a class that a compiled program has room for.
MOST_LABELS = 32
_MIN_KNOWN = 2


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
  """What all cells share.

  Attributes:
    arrays: the images; with unknown classes, labels are right only where
      `labels` are not -1, and test images are of known classes.
    labels: int32 [n] of the training images, -1 for unknown classes.
    unknown_images: uint8 [m, H, W, Ch], test images of unknown classes; None:
      all classes are known.
  """

  arrays: arrays_lib.Arrays
  labels: np.ndarray
  unknown_images: np.ndarray | None

  @property
  def num_classes(self) -> int:
    """Number of known classes."""
    return self.arrays.num_classes

  @property
  def num_images(self) -> int:
    """Number of training images."""
    return len(self.labels)

  def experiment(
    self, config: ml_collections.ConfigDict, *, labels: int, seed: int
  ) -> experiment_lib.Experiment:
    """Builds a recipe on these images.

    Args:
      config: with any labels; changed to those drawn here.
      labels: labelled images of each class.
      seed: of their draw.

    Raises:
      ValueError, TypeError: as `experiment.create`.
    """
    ids = draw.stratified(
      self.labels,
      labels_per_class=labels,
      split_seed=seed,
      num_classes=self.num_classes,
      class_names=self.arrays.class_names,
    )
    section = config.data
    section.labels_per_class = 0
    section.labels_fraction = 0.0
    section.split_seed = seed
    with tempfile.TemporaryDirectory() as directory:
      # The only door through which rows may be chosen one by one.
      section.labels_file = str(pathlib.Path(directory) / "labelled.txt")
      text = "".join(f"{row}\n" for row in ids.tolist())
      pathlib.Path(section.labels_file).write_text(text, encoding="utf-8")
      return experiment_lib.create(config_lib.build(config), arrays=self.arrays)


def load(config: ml_collections.ConfigDict, *, unknown_classes: int) -> Data:
  """Reads the recipe's images and hides the last classes.

  Raises:
    ValueError: images on disk, or too many classes to hide.
    FileNotFoundError: data that are not there.
  """
  section = config.data
  if section.pipeline != "memory":
    raise ValueError(
      f"data.pipeline is {section.pipeline!r}: the comparison needs a recipe "
      "whose images lie in memory, as digits, idx or small tfds do."
    )
  arrays = arrays_lib.load(
    section.source, directory=section.dir, tfds_name=section.tfds_name
  )
  return hide(arrays, unknown_classes)


def hide(arrays: arrays_lib.Arrays, unknown_classes: int) -> Data:
  """Makes the last classes unknown.

  Raises:
    ValueError: fewer than two known classes would be left.
  """
  if not unknown_classes:
    return Data(arrays, arrays.train_labels, None)
  num_known = arrays.num_classes - unknown_classes
  if num_known < _MIN_KNOWN:
    raise ValueError(
      f"--unknown_classes is {unknown_classes} but {arrays.name} has "
      f"{arrays.num_classes} classes: lower it to at most "
      f"{arrays.num_classes - _MIN_KNOWN}."
    )
  known = arrays.train_labels < num_known
  known_tests = arrays.test_labels < num_known
  changed = dataclasses.replace(
    arrays,
    name=f"{arrays.name}, {num_known} of {arrays.num_classes} classes known",
    class_names=arrays.class_names[:num_known],
    # Arrays have a label for each image; nobody reads those of the unknown.
    train_labels=np.where(known, arrays.train_labels, 0).astype(np.int32),
    test_images=arrays.test_images[known_tests],
    test_labels=arrays.test_labels[known_tests],
  )
  labels = np.where(known, arrays.train_labels, -1).astype(np.int32)
  return Data(changed, labels, arrays.test_images[~known_tests])


def auroc(known: np.ndarray, unknown: np.ndarray) -> float:
  """Probability that a known image scores higher than an unknown one.

  Args:
    known: [n] scores, higher for what looks known.
    unknown: [m] scores of unknown images.

  Returns:
    The area under the ROC curve, in [0, 1]; 0.5 for scores that tell nothing.
  """
  from sklearn import metrics

  truth = np.repeat([1, 0], [len(known), len(unknown)])
  return float(metrics.roc_auc_score(truth, np.concatenate([known, unknown])))
