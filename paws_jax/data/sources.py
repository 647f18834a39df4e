"""Image classification data sets that fit in memory, as NumPy arrays.

`load` knows three sources: scikit-learn's digits, the idx files of the MNIST
family, and any small TFDS builder whose data are already prepared. None of
them reaches for the network, and each imports what it needs only when asked:
digits and idx work where neither TensorFlow nor TFDS is installed.
"""

from __future__ import annotations

import dataclasses
import difflib
import gzip
import hashlib
import math
import os
import re
import struct
import zlib
from typing import Any

import numpy as np

from paws_jax.data import splits

_NUM_DIGITS_TEST = 360

_IDX_PARTS = ("train", "t10k")
_FASHION_NAMES = (
  *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
  *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# sha256 of the 10,000 test labels, one byte each, that only this set has.
_FASHION_TEST_LABELS = (
  "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"
)


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """A data set in host memory; checked when it is made.

  Attributes:
    name: for readers: "digits", "cifar10/3.0.2".
    class_names: one for each class, in the order of the labels.
    train_images: uint8 [n, H, W, C] with C 1 or 3.
    train_labels: int32 [n] in [0, number of classes).
    test_images: uint8 [m, H, W, C], the same H, W and C.
    test_labels: int32 [m] in [0, number of classes).
  """

  name: str
  class_names: tuple[str, ...]
  train_images: np.ndarray
  train_labels: np.ndarray
  test_images: np.ndarray
  test_labels: np.ndarray

  def __post_init__(self):
    for part in ("train", "test"):
      images = getattr(self, f"{part}_images")
      labels = getattr(self, f"{part}_labels")
      self._check_images(f"{part}_images", images)
      self._check_labels(f"{part}_labels", labels)
      if len(images) != len(labels):
        raise ValueError(
          f"{self.name}: {part}_images holds {len(images)} images, but "
          f"{part}_labels {len(labels)} labels: give each image one label"
        )
    train, test = self.train_images.shape[1:], self.test_images.shape[1:]
    if train != test:
      raise ValueError(
        f"{self.name}: train_images are {train}, but test_images {test} "
        "[H, W, C]: resize one of them to the other"
      )

  def _check_images(self, field: str, images: np.ndarray) -> None:
    """Raises unless images are uint8 [n > 0, H, W, 1 or 3]."""
    shape = images.shape
    if (
      images.dtype != np.uint8
      or len(shape) != 4
      or shape[-1] not in (1, 3)
      or 0 in shape
    ):
      raise ValueError(
        f"{self.name}: {field} is {images.dtype} of shape {shape}, but must "
        "be uint8 of shape [n > 0, H, W, 1 or 3]: scale pixels to 0 ... 255, "
        "round them, and put channels last, also for grey images"
      )

  def _check_labels(self, field: str, labels: np.ndarray) -> None:
    """Raises unless labels are int32 [n] in [0, num_classes)."""
    if labels.dtype != np.int32 or labels.ndim != 1:
      raise ValueError(
        f"{self.name}: {field} is {labels.dtype} of rank {labels.ndim}, but "
        "must be int32 of rank 1: pass class numbers, .astype(np.int32)"
      )
    bad = (labels < 0) | (labels >= self.num_classes)
    if np.any(bad):
      at = int(np.argmax(bad))
      raise ValueError(
        f"{self.name}: {field}[{at}] = {labels[at]} is outside [0, "
        f"{self.num_classes}), the first of {int(bad.sum())}: number the "
        "classes from 0 and name each in class_names"
      )

  @property
  def num_classes(self) -> int:
    """Number of classes, including any without an image."""
    return len(self.class_names)

  def fingerprint(self) -> str:
    """Returns hex sha256 of images and labels; names do not enter."""
    digest = hashlib.sha256()
    for part in ("train", "test"):
      images = getattr(self, f"{part}_images")
      labels = getattr(self, f"{part}_labels")
      # The shape first: the same bytes as other rows are other images.
      digest.update(f"{part} {images.shape}\n".encode())
      digest.update(np.ascontiguousarray(images))
      digest.update(labels.astype("<i4").tobytes())
    return digest.hexdigest()


def load(source: str, *, directory: str, tfds_name: str) -> Arrays:
  """Reads a data set into memory, without the network.

  Args:
    source: "digits", "idx" or "tfds".
    directory: for "idx" the place of its four files; for "tfds" a prepared
      data set, or a TFDS data_dir ("" for TFDS' own default).
    tfds_name: for "tfds": "name" or "name/config:version"; may be "" when
      `directory` is itself a prepared data set.

  Raises:
    FileNotFoundError: files are missing; says which and where to get them.
    ValueError: an unknown source or TFDS name, or damaged or unfit contents.
  """
  match source:
    case "digits":
      return _load_digits()
    case "idx":
      return _load_idx(directory)
    case "tfds":
      return _load_tfds(directory, tfds_name)
  raise ValueError(
    f'data.source = {source!r} is unknown: use one of "digits", "idx", "tfds"'
  )


def _load_digits() -> Arrays:
  """scikit-learn's 1,797 handwritten digits, 8 x 8 x 1, 360 held out as test.

  The test part is the same whatever the seeds: of the n_c images of class c,
  floor(360 n_c / 1797) are held out, and one more in the classes with the
  largest remainders (the lower class first) until there are 360. That gives
  35 to 37 a class. Which ones is settled by `splits.draw_order`. Both parts
  keep scikit-learn's order.
  """
  from sklearn import datasets

  digits = datasets.load_digits()
  # 0 ... 16 to 0 ... 255, rounded (half upwards) in integers.
  grey = (digits.images.astype(np.int64) * 255 + 8) // 16
  images = grey.astype(np.uint8)[..., None]
  labels = digits.target.astype(np.int32)
  held_out = np.zeros(len(labels), bool)
  members = splits.members_by_class(labels, num_classes=10)
  quotas = _proportional([len(m) for m in members], _NUM_DIGITS_TEST)
  for class_id, (rows, quota) in enumerate(zip(members, quotas, strict=True)):
    order = splits.draw_order(
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
  """Shares `total` out in proportion to counts, by largest remainder."""
  shares = [total * n // sum(counts) for n in counts]
  remainders = [total * n % sum(counts) for n in counts]
  by_remainder = sorted(range(len(counts)), key=lambda c: (-remainders[c], c))
  for class_id in by_remainder[: total - sum(shares)]:
    shares[class_id] += 1
  return shares


def _load_idx(directory: str) -> Arrays:
  """{train,t10k}-{images-idx3,labels-idx1}-ubyte of a directory, or .gz."""
  files = _find_idx_files(directory)
  parts: dict[str, np.ndarray] = {}
  for part, name in zip(_IDX_PARTS, ("train", "test"), strict=True):
    image_path = files[f"{part}-images-idx3-ubyte"]
    label_path = files[f"{part}-labels-idx1-ubyte"]
    images, labels = _read_idx(image_path, 3), _read_idx(label_path, 1)
    if len(images) != len(labels):
      raise ValueError(
        f"{image_path} holds {len(images)} images, but {label_path} "
        f"{len(labels)} labels: take both from the same release"
      )
    parts[f"{name}_images"] = images[..., None]
    parts[f"{name}_labels"] = labels.astype(np.int32)
  test_labels = parts["test_labels"].astype(np.uint8)
  fashion = hashlib.sha256(test_labels).hexdigest() == _FASHION_TEST_LABELS
  num_classes = int(parts["train_labels"].max(initial=-1)) + 1
  return Arrays(
    name="fashion_mnist" if fashion else "idx",
    class_names=(
      _FASHION_NAMES if fashion else tuple(map(str, range(num_classes)))
    ),
    **parts,
  )


def _find_idx_files(directory: str) -> dict[str, str]:
  """Returns the path of each of the four files; plain goes before .gz."""
  stems = [
    f"{part}-{kind}-ubyte"
    for part in _IDX_PARTS
    for kind in ("images-idx3", "labels-idx1")
  ]
  found = {}
  for stem in stems:
    for path in (os.path.join(directory, stem + end) for end in ("", ".gz")):
      if directory and os.path.isfile(path):
        found.setdefault(stem, path)
  missing = [stem for stem in stems if stem not in found]
  if missing:
    raise FileNotFoundError(
      f"data.dir = {directory!r} holds {len(found)} of the {len(stems)} files "
      f'that data.source = "idx" reads; missing, plain or as .gz: '
      f"{', '.join(missing)}. Give the directory that holds them; for "
      "Fashion-MNIST, Debian's package dataset-fashion-mnist puts them in "
      "/usr/share/datasets/fashion-mnist"
    )
  return found


def _read_idx(path: str, num_dims: int) -> np.ndarray:
  """Reads an idx file of unsigned bytes: uint8 of rank num_dims, read-only.

  The format: two zero bytes, the code of the dtype (8: unsigned byte), the
  rank, each dimension as a big-endian uint32, then the values.
  """
  opener = gzip.open if path.endswith(".gz") else open
  try:
    with opener(path, "rb") as file:
      content = file.read()
  except (gzip.BadGzipFile, EOFError, zlib.error) as error:
    raise ValueError(
      f"{path} is not a whole gzip file ({error}): fetch it again"
    ) from error
  header = 4 + 4 * num_dims
  magic = bytes([0, 0, 8, num_dims])
  if content[:4] != magic:
    raise ValueError(
      f"{path} starts with the bytes {content[:4].hex()!r}, but an idx file "
      f"of unsigned bytes (dtype code 08) and {num_dims} dimensions with "
      f"{magic.hex()!r}: fetch it again, and swap no images with labels"
    )
  # A file that ends within the header lacks dimensions: count them as none.
  dims = content[4:header].ljust(4 * num_dims, b"\0")
  shape = struct.unpack(f">{num_dims}I", dims)
  expected = header + math.prod(shape)
  if len(content) != expected:
    kind = "is truncated" if len(content) < expected else "has trailing bytes"
    raise ValueError(
      f"{path} {kind}: its header, dimensions {shape}, asks for {expected} "
      f"bytes, but {len(content)} were found (decompressed): fetch it again"
    )
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _load_tfds(directory: str, tfds_name: str) -> Arrays:
  """The splits train and test (or validation) of a prepared TFDS builder."""
  import tensorflow as tf

  # Before TensorFlow's first use: it would take the memory of every GPU.
  tf.config.set_visible_devices([], "GPU")
  builder = _tfds_builder(directory, tfds_name)
  name = builder.info.full_name
  features = builder.info.features
  _check_tfds_features(name, features)
  known = list(builder.info.splits)
  test = "validation" if known and "test" not in known else "test"
  parts: dict[str, np.ndarray] = {}
  for split, part in (("train", "train"), (test, "test")):
    if known and split not in known:
      raise ValueError(
        f"{name} has the splits {known}, but needs train, and test or "
        "validation: choose another data set"
      )
    images, labels = _read_tfds_split(builder, split)
    parts[f"{part}_images"], parts[f"{part}_labels"] = images, labels
  return Arrays(name=name, class_names=tuple(features["label"].names), **parts)


def _tfds_builder(directory: str, tfds_name: str) -> Any:
  """Opens a builder, from its files where it can; never downloads."""
  import tensorflow_datasets as tfds
  from etils import epath

  if directory and (epath.Path(directory) / "dataset_info.json").exists():
    builder = tfds.builder_from_directory(directory)
    asked = re.split("[/:]", tfds_name)[0]
    if asked not in ("", builder.name):
      raise ValueError(
        f"data.tfds_name = {tfds_name!r}, but data.dir = {directory!r} holds "
        f"{builder.name!r}: make the two agree"
      )
    return builder
  # "namespace:name" would fetch and run somebody's code.
  if not tfds_name or re.match(r"\w+:[a-zA-Z]", tfds_name):
    raise ValueError(
      f"data.tfds_name = {tfds_name!r} and data.dir = {directory!r} name no "
      'data set: give tfds_name as "name" or "name/config:version", or the '
      "directory that holds dataset_info.json"
    )
  try:
    return tfds.builder(tfds_name, data_dir=directory or None)
  except ValueError as error:  # DatasetNotFoundError is one, too
    names = tfds.list_builders(with_community_datasets=False)
    asked = re.split("[/:]", tfds_name)[0]
    near = difflib.get_close_matches(asked, names, n=5) or ["cifar10", "mnist"]
    raise ValueError(
      f"data.tfds_name = {tfds_name!r} is unknown to TFDS, and no such data "
      f"set is prepared in data.dir = {directory!r}; of the {len(names)} that "
      f"exist (tfds.list_builders()) the nearest are {near}"
    ) from error


def _check_tfds_features(name: str, features: Any) -> None:
  """Raises unless the features are those of image classification."""
  import tensorflow_datasets as tfds

  for key, kind in (
    ("image", tfds.features.Image),
    ("label", tfds.features.ClassLabel),
  ):
    if key not in features or not isinstance(features[key], kind):
      raise ValueError(
        f"{name} has the features {sorted(features)}, but needs {key!r} as "
        f"tfds.features.{kind.__name__}: choose an image classification set"
      )


def _read_tfds_split(builder: Any, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns images uint8 [n, H, W, C] and labels int32 [n] of a split.

  Rows stand in the order of the feature `id` where there is one (cifar10 and
  cifar100: row i is the i-th image of the original files, on which published
  lists of labelled images count), else in the order of the prepared files.
  """
  import tensorflow_datasets as tfds

  keys = [k for k in ("image", "label", "id") if k in builder.info.features]
  try:
    dataset = builder.as_dataset(
      split=split, read_config=tfds.ReadConfig(try_autocache=False)
    )
  except AssertionError as error:  # how TFDS says that there are no files
    raise FileNotFoundError(_not_prepared(builder)) from error
  dataset = dataset.map(lambda row: {key: row[key] for key in keys})
  # Batches cost a tenth of single rows, where the builder fixes the shape.
  fixed = dataset.element_spec["image"].shape.is_fully_defined()
  batches = []
  for batch in dataset.batch(1024 if fixed else 1).as_numpy_iterator():
    shape = batch["image"].shape[1:]
    batches.append(batch)
    if shape != batches[0]["image"].shape[1:]:
      raise ValueError(
        f"{builder.info.full_name}, split {split}: image {len(batches) - 1} "
        f"is {shape}, but image 0 {batches[0]['image'].shape[1:]} [H, W, C]; "
        "a source in memory needs equal shapes: resize the images when "
        "preparing the data set"
      )
  rows = {k: np.concatenate([batch[k] for batch in batches]) for k in keys}
  if "id" in rows:
    order = np.argsort(rows["id"], kind="stable")
    rows = {key: values[order] for key, values in rows.items()}
  return rows["image"], rows["label"].astype(np.int32)


def _not_prepared(builder: Any) -> str:
  """Says how to prepare a data set, in one command."""
  name = builder.info.full_name
  root = str(builder.data_dir).removesuffix(f"/{name}")
  return (
    f"{name} is not prepared in data.dir = {root!r}, and nothing is "
    "downloaded while training: run this once, where there is a network:\n"
    '  python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder({name!r}, data_dir={root!r})"
    '.download_and_prepare()"'
  )
