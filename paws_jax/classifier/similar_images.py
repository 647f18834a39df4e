"""Near duplicates and outliers among embedded images.

Two images are near duplicates if their embeddings are alike and so are small
grey pictures of them. Neither is enough: a trained encoder brings all images of
a class together, and smooth pictures are alike whatever they show.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from paws_jax.classifier import preprocessing

# Least cosine of two embeddings, and correlation of two pictures, of near
# duplicates. Of the 1.6 million pairs of digits of the quickstart, 47,744 have
# such a cosine, and 8 both; of copies as JPEG of quality 75, all have.
COSINE, CORRELATION = 0.95, 0.99
# Most similar images of which an outlier has a low mean.
NEIGHBORS = 5
_SIDE = 16
# Rows that are compared with all others at once.
_BLOCK = 512


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
  """Images of one purpose.

  Attributes:
    name: "labelled", "unlabelled", "val", "validation" or "test".
    embeddings: float [n, D].
    pictures: float32 [n, 256], of `shrink`.
    labels: int [n], -1 where it is not known.
  """

  name: str
  embeddings: np.ndarray
  pictures: np.ndarray
  labels: np.ndarray

  @property
  def is_held_out(self) -> bool:
    """Whether it measures the accuracy."""
    return self.name not in ("labelled", "unlabelled")


@dataclasses.dataclass(frozen=True)
class Pair:
  """Two near duplicates.

  Attributes:
    first: place in the first set of its kind.
    second: place in the second set.
    cosine: of the embeddings.
    correlation: of the pictures.
    conflict: whether both are labelled, with different classes.
  """

  first: int
  second: int
  cosine: float
  correlation: float
  conflict: bool


@dataclasses.dataclass(frozen=True, eq=False)
class PairKind:
  """Near duplicates of two sets, or within one.

  Attributes:
    first: place of one set.
    second: place of the other; `first` within one set.
    count: number of pairs.
    conflicts: how many of them have different classes.
    pairs: the clearest ones, those of different classes first.
  """

  first: int
  second: int
  count: int
  conflicts: int
  pairs: tuple[Pair, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
  """Result of comparing all images with each other.

  Attributes:
    kinds: those that have pairs.
    similarity: for each set float32 [n], the mean cosine of an image to the
      `NEIGHBORS` images most similar to it, of any set.
  """

  kinds: tuple[PairKind, ...]
  similarity: tuple[np.ndarray, ...]


def shrink(images: np.ndarray) -> np.ndarray:
  """Makes small grey pictures whose dot product is their correlation.

  Args:
    images: uint8 [n, H, W, Ch].

  Returns:
    float32 [n, 256] of mean 0 and length 1; 0 for an image of one color.
  """
  small = np.zeros((len(images), _SIDE * _SIDE), np.float32)
  for row, image in zip(small, images, strict=True):
    picture = preprocessing.cover(image, _SIDE, _SIDE)
    row[...] = picture.astype(np.float32).mean(axis=-1).ravel()
  small -= small.mean(axis=1, keepdims=True)
  # Less than a grey level is rounding.
  flat = np.abs(small).max(axis=1, initial=0) < 1
  small[flat] = 0
  return _directions(small)


def compare(sets: Sequence[ImageSet], *, most: int) -> Comparison:
  """Compares all images with each other, block by block.

  Args:
    sets: the images.
    most: pairs of each kind to return; all are counted.
  """
  sizes = [len(one.embeddings) for one in sets]
  starts = np.concatenate([[0], np.cumsum(sizes)])
  of_set = np.repeat(np.arange(len(sets)), sizes)
  embeddings = _directions(np.concatenate([one.embeddings for one in sets]))
  pictures = np.concatenate([one.pictures for one in sets])
  labels = np.concatenate([one.labels for one in sets])
  k = min(NEIGHBORS, len(embeddings) - 1)
  similarity = np.zeros(len(embeddings), np.float32)
  found: dict[tuple[int, int], _Found] = {}
  for start in range(0, len(embeddings), _BLOCK):
    rows = np.arange(start, min(start + _BLOCK, len(embeddings)))
    cosines = embeddings[rows] @ embeddings.T
    cosines[np.arange(len(rows)), rows] = -2
    if k:
      nearest = np.partition(cosines, -k, axis=1)[:, -k:]
      similarity[rows] = nearest.mean(axis=1)
    alike = pictures[rows] @ pictures[start:].T
    near = (alike >= CORRELATION) & (cosines[:, start:] >= COSINE)
    # Each pair once.
    first, second = np.nonzero(np.triu(near, 1))
    values = cosines[first, start + second], alike[first, second]
    _add(found, of_set, labels, (rows[first], start + second), values, most)
  return Comparison(
    kinds=tuple(
      one.kind(i, j, starts) for (i, j), one in sorted(found.items())
    ),
    similarity=tuple(np.split(similarity, starts[1:-1])),
  )


@dataclasses.dataclass
class _Found:
  """Pairs of one kind, as columns: rows, cosines, correlations, conflicts."""

  count: int = 0
  conflicts: int = 0
  columns: tuple[np.ndarray, ...] = ()

  def add(self, columns: tuple[np.ndarray, ...], most: int) -> None:
    self.count += len(columns[0])
    self.conflicts += int(columns[-1].sum())
    if self.columns:
      pairs = zip(self.columns, columns, strict=True)
      columns = tuple(np.concatenate(pair) for pair in pairs)
    _, _, cosine, correlation, conflict = columns
    order = np.lexsort((-(cosine + correlation), ~conflict))[:most]
    self.columns = tuple(column[order] for column in columns)

  def kind(self, i: int, j: int, starts: np.ndarray) -> PairKind:
    pairs = tuple(
      Pair(int(a - starts[i]), int(b - starts[j]), float(c), float(p), bool(x))
      for a, b, c, p, x in zip(*self.columns, strict=True)
    )
    return PairKind(i, j, self.count, self.conflicts, pairs)


def _add(
  found: dict[tuple[int, int], _Found],
  of_set: np.ndarray,
  labels: np.ndarray,
  rows: tuple[np.ndarray, np.ndarray],
  values: tuple[np.ndarray, np.ndarray],
  most: int,
) -> None:
  """Adds the pairs of a block to those of their kinds."""
  first, second = rows
  known = (labels[first] >= 0) & (labels[second] >= 0)
  conflict = known & (labels[first] != labels[second])
  columns = (first, second, *values, conflict)
  kinds = np.stack([of_set[first], of_set[second]], axis=1)
  for i, j in np.unique(kinds, axis=0).tolist():
    mine = (kinds == (i, j)).all(axis=1)
    one = found.setdefault((i, j), _Found())
    one.add(tuple(column[mine] for column in columns), most)


def _directions(vectors: np.ndarray) -> np.ndarray:
  """float32 [n, D] of length 1, or 0."""
  vectors = np.asarray(vectors, np.float32)
  norms = np.linalg.norm(vectors, axis=1, keepdims=True)
  return vectors / np.maximum(norms, 1e-12)
