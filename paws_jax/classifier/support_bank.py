"""The labelled images that vote: embeddings, labels, names, thumbnails."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from paws_jax import errors
from paws_jax import json_text
from paws_jax import text
from paws_jax.classifier import preprocessing

# Longest side of a thumbnail in pixels, the first whose thumbnails fit.
_SIDES = (64, 48, 32, 24, 16)
_THUMBNAIL_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class SupportBank:
  """N labelled images.

  Attributes:
    embeddings: float32 [N, D], not normalized.
    labels: int32 [N], places in the classifier's class_names.
    names: of each image, for readers.
    thumbnails: uint8 [N, h, w, Ch].
  """

  embeddings: np.ndarray
  labels: np.ndarray
  names: tuple[str, ...]
  thumbnails: np.ndarray

  def __post_init__(self) -> None:
    count = len(self.labels)
    lengths = {
      "embeddings": len(self.embeddings),
      "names": len(self.names),
      "thumbnails": len(self.thumbnails),
    }
    for name, length in lengths.items():
      if length != count:
        raise errors.InputError(
          f"a bank of {count} labels but {length} {name}."
        )

  def __len__(self) -> int:
    """N."""
    return len(self.labels)

  def __repr__(self) -> str:
    """Its size."""
    return f"SupportBank(embeddings {list(self.embeddings.shape)})"

  def extended(self, other: SupportBank) -> SupportBank:
    """This bank with another's images after its own."""
    return SupportBank(
      embeddings=np.concatenate([self.embeddings, other.embeddings]),
      labels=np.concatenate([self.labels, other.labels]),
      names=(*self.names, *other.names),
      thumbnails=np.concatenate([self.thumbnails, other.thumbnails]),
    )

  def to_bytes(self) -> bytes:
    """In the safetensors format."""
    arrays = {
      "embeddings": self.embeddings,
      "labels": self.labels,
      "thumbnails": self.thumbnails,
    }
    return safetensors.numpy.save(
      {name: np.ascontiguousarray(array) for name, array in arrays.items()},
      metadata={"names": json.dumps(self.names)},
    )


def from_bytes(content: bytes) -> SupportBank:
  """What `Bank.to_bytes` has made.

  Raises:
    ValueError: when it is something else.
  """
  try:
    arrays = safetensors.numpy.load(content)
    names = json_text.parse(_metadata(content)["names"])
    if not isinstance(names, list):
      raise TypeError("its names are no list")
    return SupportBank(
      embeddings=arrays["embeddings"],
      labels=arrays["labels"],
      names=tuple(names),
      thumbnails=arrays["thumbnails"],
    )
  except (KeyError, TypeError, safetensors.SafetensorError) as error:
    raise errors.InputError(f"it is no support bank ({error!r})") from None


def _metadata(content: bytes) -> dict[str, str]:
  """The header's own entries; safetensors reads them from files only."""
  # Eight bytes of length, then JSON.
  length = int.from_bytes(content[:8], "little")
  return json_text.parse(content[8 : 8 + length]).get("__metadata__", {})


def thumbnail_shape(
  shape: tuple[int, int, int], count: int
) -> tuple[int, int, int]:
  """(h, w, Ch) of thumbnails.

  Args:
    shape: of an image.
    count: how many there are: of very many, they are smaller.
  """
  height, width, channels = shape
  longest = max(height, width)
  for side in _SIDES:
    scale = min(1.0, side / longest)
    small = (math.ceil(height * scale), math.ceil(width * scale), channels)
    if count * math.prod(small) <= _THUMBNAIL_BYTES:
      break
  return small


def thumbnails(pixels: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
  """Reduces uint8 [n, H, W, Ch] to [n, *shape]."""
  if pixels.shape[1:] == shape:
    return np.array(pixels)
  small = np.zeros((len(pixels), *shape), np.uint8)
  for i, image in enumerate(pixels):
    small[i] = preprocessing.cover(image, *shape[:2])
  return small


def embed_labelled(
  labelled: Any,
  embed: Callable[[np.ndarray, int], np.ndarray],
  *,
  batch_size: int,
  name: str,
) -> SupportBank:
  """Embeds a run's labelled images.

  Args:
    labelled: `dataset.LabelledImages`.
    embed: of (uint8 [m, H, W, Ch], batch_size); gives float32 [m, D].
    batch_size: images at once.
    name: of the data set, for messages.

  Raises:
    errors.BadImageError: when those that can be read are of fewer than two
      classes.
    errors.NonFiniteError: when embeddings are not finite; names the images.
  """
  shape = thumbnail_shape(tuple(labelled.images.shape[1:]), len(labelled))
  rows, small = [], []
  for first in range(0, len(labelled), batch_size):
    pixels = labelled.images[first : first + batch_size]
    rows.append(embed(pixels, batch_size))
    small.append(thumbnails(pixels, shape))
  chosen = np.flatnonzero(labelled.readable)
  if len(np.unique(labelled.labels[chosen])) < 2:
    num_bad = len(labelled) - len(chosen)
    raise errors.BadImageError(
      name,
      f"{num_bad} of {len(labelled)} labelled images cannot be read, and the "
      "others are of fewer than two classes",
      remedy="Repair them",
    )
  support_bank = SupportBank(
    embeddings=np.concatenate(rows)[chosen],
    labels=np.asarray(labelled.labels, np.int32)[chosen],
    names=tuple(labelled.name(int(i)) for i in chosen),
    thumbnails=np.concatenate(small)[chosen],
  )
  check_finite(
    support_bank.embeddings, support_bank.names, of="labelled images"
  )
  return support_bank


def not_finite(embeddings: np.ndarray) -> np.ndarray:
  """Places of embeddings [n, D] whose length has no value in 32 bits."""
  with np.errstate(over="ignore", invalid="ignore"):
    squares = np.einsum("nd,nd->n", embeddings, embeddings)
  # NaN is not below the limit.
  return np.flatnonzero(~(squares <= np.finfo(np.float32).max))


def check_finite(
  embeddings: np.ndarray, names: Sequence[str], *, of: str = "images"
) -> None:
  """Raises errors.NonFiniteError unless all of [n, D] is finite.

  Args:
    embeddings: of images.
    names: of the images.
    of: what they are.
  """
  bad = not_finite(embeddings)
  if len(bad):
    raise errors.NonFiniteError(
      f"the embeddings of {len(bad)} of {len(names)} {of} are not finite: "
      f"{text.first_few(names[i] for i in bad)}. The encoder has diverged, or "
      "its weights are damaged."
    )
