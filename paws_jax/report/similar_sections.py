"""Sections of a report on near duplicates and outliers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from paws_jax import text as text_lib
from paws_jax.classifier import similar_images
from paws_jax.report import figures
from paws_jax.report import page
from paws_jax.report import votes

# What a page shows at most.
_MOST_PAIRS, _MOST_HARMLESS = 12, 6
_MOST_OUTLIERS = 12


@dataclasses.dataclass(frozen=True, eq=False)
class SupportImages:
  """Labelled images of a support bank, read like `votes.VotedImages`."""

  support_bank: Any
  rows: np.ndarray

  def name(self, place: int) -> str:
    """Name of an image."""
    return self.support_bank.names[int(self.rows[place])]

  def images(self, places: Sequence[int] | np.ndarray) -> np.ndarray:
    """Its thumbnails."""
    return self.support_bank.thumbnails[self.rows[np.asarray(places, int)]]


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
  """Images of a run that were compared with each other.

  Attributes:
    sets: embeddings, pictures and labels by purpose.
    sources: names and images of each set.
    comparison: what was found.
  """

  sets: tuple[similar_images.ImageSet, ...]
  sources: tuple[SupportImages | votes.VotedImages, ...]
  comparison: similar_images.Comparison

  def __len__(self) -> int:
    """Number of images."""
    return sum(len(one.labels) for one in self.sets)


def compare(
  support_bank: Any,
  parts: Mapping[str, votes.VotedImages | None],
  *,
  most: int,
  seed: int,
) -> Compared:
  """Compares labelled images and those of other parts.

  Args:
    support_bank: the labelled images.
    parts: others by name; None: there are none.
    most: labelled images to sample, where there are more.
    seed: of the sample.
  """
  rows = votes.draw(len(support_bank), most, seed=seed)
  sources: dict[str, SupportImages | votes.VotedImages] = {
    "labelled": SupportImages(support_bank, rows)
  }
  sets = [
    similar_images.ImageSet(
      name="labelled",
      embeddings=support_bank.embeddings[rows],
      pictures=similar_images.shrink(support_bank.thumbnails[rows]),
      labels=support_bank.labels[rows],
    )
  ]
  for name, part in parts.items():
    if part is not None:
      assert part.pictures is not None
      sources[name] = part
      labels = np.full(len(part), -1) if name == "unlabelled" else part.labels
      sets.append(
        similar_images.ImageSet(name, part.embeddings, part.pictures, labels)
      )
  comparison = similar_images.compare(sets, most=_MOST_PAIRS)
  return Compared(tuple(sets), tuple(sources.values()), comparison)


def near_duplicates(
  compared: Compared | None, class_names: tuple[str, ...]
) -> page.Section | None:
  """Pairs of images that are nearly the same; None if none were compared."""
  if compared is None:
    return None
  kinds = sorted(
    compared.comparison.kinds,
    key=lambda kind: not _harm(compared, kind),
  )
  rule = (
    f"both for the encoder (cosine of {similar_images.COSINE} or more) and as "
    "small grey pictures (correlation of "
    f"{similar_images.CORRELATION} or more)"
  )
  number = sum(kind.count for kind in kinds)
  text = (
    f"{text_lib.count(number, 'pair')} of the {len(compared):,} images "
    f"compared {'is' if number == 1 else 'are'} alike {rule}."
  )
  title = "Near duplicates"
  if not kinds:
    return page.Section("duplicates", title, (text,))
  warnings = dict.fromkeys(_harm(compared, kind) for kind in kinds)
  rows = tuple(
    (
      _title(compared, kind),
      f"{kind.count:,}",
      f"{kind.conflicts:,}",
    )
    for kind in kinds
  )
  columns = ("images", "pairs", "with different labels")
  return page.Section(
    "duplicates",
    title,
    (text, *filter(None, warnings)),
    table=page.Table(columns, rows),
    groups=tuple(
      (_title(compared, kind), _pair_cards(compared, kind, class_names))
      for kind in kinds
    ),
  )


def outliers(
  compared: Compared | None, class_names: tuple[str, ...]
) -> page.Section | None:
  """The images that resemble the others least; None if there are too few."""
  if compared is None or len(compared) <= 2 * _MOST_OUTLIERS:
    return None
  values = np.concatenate(compared.comparison.similarity)
  of_set = np.repeat(
    np.arange(len(compared.sets)), [len(one.labels) for one in compared.sets]
  )
  place_in_set = np.concatenate(
    [np.arange(len(one.labels)) for one in compared.sets]
  )
  cards = []
  for row in np.argsort(values, kind="stable")[:_MOST_OUTLIERS]:
    number, place = int(of_set[row]), int(place_in_set[row])
    source = compared.sources[number]
    cards.append(
      page.Card(
        picture=figures.thumbnail(source.images([place])[0]),
        name=source.name(place),
        lines=(
          f"mean cosine {values[row]:.2f}",
          _described(compared, number, place, class_names),
        ),
      )
    )
  text = (
    f"The {len(cards)} of {len(compared):,} images that resemble others least, "
    f"by the mean cosine to the {similar_images.NEIGHBORS} most similar ones; "
    f"the median of all is {np.median(values):.2f}. There are always some: "
    "they may be damaged, of no class, or rare and important.",
  )
  return page.Section(
    "outliers", "Outliers", text, groups=(("", tuple(cards)),)
  )


def _harm(compared: Compared, kind: similar_images.PairKind) -> str:
  """Fault of pairs of a kind; "": there is none."""
  first, second = compared.sets[kind.first], compared.sets[kind.second]
  if first.is_held_out != second.is_held_out:
    return (
      "Warning: training images look like copies of images that measure the "
      "accuracy. If they are, it is too high: remove them from one of the two."
    )
  if kind.conflicts:
    return (
      "Warning: near duplicates have different labels, of which one may be "
      "wrong."
    )
  return ""


def _title(compared: Compared, kind: similar_images.PairKind) -> str:
  first, second = compared.sets[kind.first], compared.sets[kind.second]
  if first is second:
    return f"two {first.name} images"
  return f"{first.name} and {second.name} images"


def _described(
  compared: Compared, number: int, place: int, class_names: tuple[str, ...]
) -> str:
  one = compared.sets[number]
  label = int(one.labels[place])
  return f"{one.name}" + (f": {class_names[label]}" if label >= 0 else "")


def _pair_cards(
  compared: Compared,
  kind: similar_images.PairKind,
  class_names: tuple[str, ...],
) -> tuple[page.Card, ...]:
  harm = _harm(compared, kind)
  shown = kind.pairs[: _MOST_PAIRS if harm else _MOST_HARMLESS]
  sources = compared.sources[kind.first], compared.sources[kind.second]
  held_out = kind.first != kind.second and bool(harm)
  cards = []
  for pair in shown:
    first, second = (
      source.images([place])[0]
      for source, place in zip(sources, (pair.first, pair.second), strict=True)
    )
    said = [
      _described(compared, number, place, class_names)
      for number, place in (
        (kind.first, pair.first),
        (kind.second, pair.second),
      )
    ]
    cards.append(
      page.Card(
        picture=figures.thumbnail(first),
        name=sources[0].name(pair.first),
        lines=(
          " and ".join(said),
          f"cosine {pair.cosine:.3f}, pictures {pair.correlation:.3f}",
        ),
        beside=figures.thumbnail(second),
        name_beside=sources[1].name(pair.second),
        mark="wrong" if held_out or pair.conflict else "",
      )
    )
  return tuple(cards)
