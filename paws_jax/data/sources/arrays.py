"""Image classification data sets in memory, as NumPy arrays.

`load` has three sources: scikit-learn's digits, the idx files of the MNIST
family, and any small TFDS data set that is already prepared. None of them uses
the network, and each imports its packages only when it is called: digits and
idx work where neither TensorFlow nor TFDS is installed.
"""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np

from paws_jax import errors
from paws_jax.data.labels import draw
from paws_jax.data.sources import catalog
from paws_jax.data.sources import idx
from paws_jax.data.sources import tfds_arrays

_NUM_DIGITS_TEST = 360


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """A data set in host memory; checked when it is made.

  Attributes:
    name: for messages: "digits", "cifar10/3.0.2".
    class_names: one for each class, in the order of the labels.
    train_images: uint8 [n, H, W, C] with C 1 or 3.
    train_labels: int32 [n] in [-1, number of classes); -1 without a label.
    test_images: uint8 [m, H, W, C], the same H, W and C; m may be 0.
    test_labels: int32 [m] in [0, number of classes).
  """

  name: str
  class_names: tuple[str, ...]
  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray

  def __post_init__(self) -> None:
    for part in ("train", "test"):
      images = getattr(self, f"{part}_images")
      labels = getattr(self, f"{part}_labels")
      self._check_images(f"{part}_images", images, least=int(part == "train"))
      lowest = catalog.UNLABELLED if part == "train" else 0
      self._check_labels(f"{part}_labels", labels, lowest)
      if len(images) != len(labels):
        raise errors.InputError(
          f"{self.name}: {part}_images holds {len(images)} images, but "
          f"{part}_labels {len(labels)} labels: give each image one label"
        )
    train, test = self.train_images.shape[1:], self.test_images.shape[1:]
    if train != test:
      raise errors.InputError(
        f"{self.name}: train_images are {train} [H, W, C], but test_images "
        f"{test}: resize one of them to the other"
      )

  def _check_images(
    self, field: str, images: np.ndarray, *, least: int
  ) -> None:
    """Refuses images other than uint8 [n >= least, H, W, 1 or 3]."""
    shape = images.shape
    if (
      images.dtype != np.uint8
      or len(shape) != 4
      or shape[-1] not in (1, 3)
      or len(images) < least
      or 0 in shape[1:]
    ):
      raise errors.InputError(
        f"{self.name}: {field} is {images.dtype} of shape {shape}, but must "
        "be uint8 of shape [n > 0, H, W, 1 or 3]: scale pixels to 0 ... 255, "
        "round them, and put channels last, also for gray images"
      )

  def _check_labels(self, field: str, labels: np.ndarray, lowest: int) -> None:
    """Refuses labels other than int32 [n] in [lowest, num_classes)."""
    if labels.dtype != np.int32 or labels.ndim != 1:
      raise errors.InputError(
        f"{self.name}: {field} is {labels.dtype} of rank {labels.ndim}, but "
        "must be int32 of rank 1: pass class numbers, .astype(np.int32)"
      )
    bad = (labels < lowest) | (labels >= self.num_classes)
    if np.any(bad):
      at = int(np.argmax(bad))
      raise errors.InputError(
        f"{self.name}: {field}[{at}] = {labels[at]} is outside "
        f"[{lowest}, {self.num_classes}), the first of {int(bad.sum())}: "
        "number the classes from 0 and name each in class_names"
      )

  @property
  def num_classes(self) -> int:
    """Number of classes, including any without an image."""
    return len(self.class_names)

  def fingerprint(self) -> str:
    """Returns hex sha256 of images and labels, without names."""
    digest = hashlib.sha256()
    for part in ("train", "test"):
      images = getattr(self, f"{part}_images")
      labels = getattr(self, f"{part}_labels")
      # The shape comes first: equal bytes of another shape are other images.
      digest.update(f"{part} {images.shape}\n".encode())
      digest.update(np.ascontiguousarray(images).data)
      digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()


def load(source: str, *, directory: str, tfds_name: str) -> Arrays:
  """Reads a data set into memory, without the network.

  Args:
    source: "digits", "idx" or "tfds"; images of "arrays" are given by a
      program, and cannot be read again.
    directory: for "idx" the directory of its four files; for "tfds" a prepared
      data set, or a TFDS data_dir ("" for TFDS' default).
    tfds_name: for "tfds": "name" or "name/config:version"; may be "" when
      `directory` is itself a prepared data set.

  Raises:
    FileNotFoundError: files are missing; names them and a way to get them.
    ValueError: an unknown source or TFDS name, or damaged or unusable files.
  """
  match source:
    case "digits":
      return _load_digits()
    case "idx":
      return Arrays(**idx.load(directory))
    case "tfds":
      return Arrays(**tfds_arrays.load(directory, tfds_name))
    case "arrays":
      raise errors.InputError(
        "data.source is 'arrays': the images are those that a program gives to "
        "paws_jax.PawsClassifier.fit, which no command can read. For a run "
        "that commands can continue and evaluate, give fit the paths of files, "
        "and workdir."
      )
  raise errors.InputError(
    f'data.source = {source!r} is unknown: use one of "digits", "idx", "tfds"'
  )


def _load_digits() -> Arrays:
  """Loads scikit-learn's 1,797 handwritten digits, 8 x 8 x 1, 360 for test.

  The test part does not depend on seeds: of the n_c images of class c,
  floor(360 n_c / 1797) belong to it, and one more in the classes with the
  largest remainders (the lower class first) until there are 360. That is 35 to
  37 per class. `draw.draw_order` chooses them. Both parts keep scikit-learn's
  order.
  """
  from sklearn import datasets

  digits = datasets.load_digits()
  # 0 ... 16 to 0 ... 255, rounded (half upwards) in integers.
  gray = (digits.images.astype(np.int64) * 255 + 8) // 16
  images = gray.astype(np.uint8)[..., None]
  labels = digits.target.astype(np.int32)
  held_out = np.zeros(len(labels), bool)
  members = draw.members_by_class(labels, num_classes=10)
  quotas = _proportional([len(m) for m in members], _NUM_DIGITS_TEST)
  for class_id, (rows, quota) in enumerate(zip(members, quotas, strict=True)):
    order = draw.draw_order(
      len(rows), purpose="digits test", seed=0, class_id=class_id
    )
    held_out[rows[order[:quota]]] = True
  return Arrays(
    name="digits",
    class_names=tuple("0123456789"),
    train_images=images[~held_out],
    train_labels=labels[~held_out],
    test_images=images[held_out],
    test_labels=labels[held_out],
  )


def _proportional(counts: list[int], total: int) -> list[int]:
  """Divides `total` in proportion to counts, by largest remainder."""
  shares = [total * n // sum(counts) for n in counts]
  remainders = [total * n % sum(counts) for n in counts]
  by_remainder = sorted(range(len(counts)), key=lambda c: (-remainders[c], c))
  for class_id in by_remainder[: total - sum(shares)]:
    shares[class_id] += 1
  return shares
