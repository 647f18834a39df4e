"""The idx files of the MNIST family: images of one size, optionally as .gz."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from typing import Any

import numpy as np

from paws_jax import errors

_IDX_PARTS = ("train", "t10k")
# Methods without labels do not need this file.
_LABELS = "train-labels-idx1-ubyte"
_FASHION_NAMES = (
  *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
  *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
# sha256 of the 10,000 test labels, one byte each, of Fashion-MNIST.
_FASHION_TEST_LABELS = (
  "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"
)


def load(directory: str) -> dict[str, Any]:
  """Reads {train,t10k}-{images-idx3,labels-idx1}-ubyte, or each as .gz.

  Args:
    directory: directory of the four files; that of the training labels may be
      absent, and no training image has a label then.

  Returns:
    The fields of `arrays.Arrays`, images uint8 [n, H, W, 1].

  Raises:
    FileNotFoundError: files are missing; names them.
    ValueError: a damaged file, or different numbers of images and labels.
  """
  files = _find_idx_files(directory)
  parts: dict[str, np.ndarray] = {}
  for part, name in zip(_IDX_PARTS, ("train", "test"), strict=True):
    image_path = files[f"{part}-images-idx3-ubyte"]
    label_path = files.get(f"{part}-labels-idx1-ubyte")
    images = _read_idx(image_path, 3)
    if label_path is None:
      parts[f"{name}_images"] = images[..., None]
      parts[f"{name}_labels"] = np.full(len(images), -1, np.int32)
      continue
    labels = _read_idx(label_path, 1)
    if len(images) != len(labels):
      raise errors.InputError(
        f"{image_path} holds {len(images)} images, but {label_path} "
        f"{len(labels)} labels: take both from the same release"
      )
    parts[f"{name}_images"] = images[..., None]
    parts[f"{name}_labels"] = labels.astype(np.int32)
  test_labels = parts["test_labels"].astype(np.uint8)
  digest = hashlib.sha256(test_labels.tobytes()).hexdigest()
  fashion = digest == _FASHION_TEST_LABELS
  known = parts["train_labels" if _LABELS in files else "test_labels"]
  num_classes = int(known.max(initial=-1)) + 1
  return {
    "name": "fashion_mnist" if fashion else "idx",
    "class_names": (
      _FASHION_NAMES if fashion else tuple(map(str, range(num_classes)))
    ),
    **parts,
  }


def _find_idx_files(directory: str) -> dict[str, str]:
  """Finds the four files; a plain file takes precedence over a .gz."""
  stems = [
    f"{part}-{kind}-ubyte"
    for part in _IDX_PARTS
    for kind in ("images-idx3", "labels-idx1")
  ]
  found: dict[str, str] = {}
  for stem in stems:
    for path in (os.path.join(directory, stem + end) for end in ("", ".gz")):
      if directory and os.path.isfile(path):
        found.setdefault(stem, path)
  missing = [stem for stem in stems if stem not in found and stem != _LABELS]
  if missing:
    raise errors.MissingFileError(
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
    raise errors.InputError(
      f"{path} is not a complete gzip file ({error}): download it again"
    ) from error
  header = 4 + 4 * num_dims
  magic = bytes([0, 0, 8, num_dims])
  if content[:4] != magic:
    raise errors.InputError(
      f"{path} starts with the bytes {content[:4].hex()!r}, but an idx file "
      f"of unsigned bytes (dtype code 08) and {num_dims} dimensions starts "
      f"with {magic.hex()!r}: download it again, or check that images and "
      "labels are not exchanged"
    )
  # Where the file ends within the header, missing dimensions count as 0.
  dims = content[4:header].ljust(4 * num_dims, b"\0")
  shape = struct.unpack(f">{num_dims}I", dims)
  expected = header + math.prod(shape)
  if len(content) != expected:
    damage = "is truncated" if len(content) < expected else "has extra bytes"
    raise errors.InputError(
      f"{path} {damage}: by its header, with dimensions {shape}, it has "
      f"{expected} bytes, but it has {len(content)} (decompressed): download "
      "it again"
    )
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
