"""Findings about images that are nearly the same, and about outliers.

A trained classifier finds them, so that the doctor looks for them only where it
is given one.
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

from paws_jax import text as text_lib
from paws_jax.classifier import classifier as classifier_lib
from paws_jax.classifier import image_list
from paws_jax.classifier import preprocessing
from paws_jax.classifier import similar_images
from paws_jax.data.host import decode
from paws_jax.data.sources import catalog
from paws_jax.doctor import findings
from paws_jax.doctor import inspect

# Images of a group that are compared, evenly spaced: each with each other.
MOST_IMAGES = 5000
_MOST_PAIRS = 20
_AT_ONCE = 256
_TITLES = {"val": "validation"}


def check(
  report: findings.Report,
  groups: Sequence[inspect.Group],
  checks: Mapping[str, Sequence[inspect.ImageCheck]],
  directory: str,
) -> None:
  """Embeds the images and reports near duplicates and outliers.

  Of files with equal bytes, which have a finding of their own, one is compared.

  Args:
    report: receives the findings.
    groups: the images.
    checks: results of reading them.
    directory: of a saved classifier.

  Raises:
    UserError: there is no classifier, or its embeddings are not finite.
  """
  classifier = classifier_lib.Classifier.load(directory)
  seen: set[bytes] = set()
  sets, names = [], []
  for group in groups:
    places = _readable(checks[group.name], seen)
    if not places:
      continue
    one, of_images = _embedded(classifier, group, places)
    sets.append(one)
    names.append(of_images)
  total = sum(map(len, names))
  report.say(
    f"{total:,} images compared by {directory} (at most {MOST_IMAGES:,} of a "
    f"kind): alike with a cosine of {similar_images.COSINE} and, as small grey "
    f"pictures, a correlation of {similar_images.CORRELATION}"
  )
  if total < 2:
    return
  comparison = similar_images.compare(sets, most=_MOST_PAIRS)
  for kind in comparison.kinds:
    _pairs(report, kind, sets, names)
  if not comparison.kinds:
    report.say("no near duplicates")
  values = np.concatenate(comparison.similarity)
  all_names = [name for some in names for name in some]
  least = text_lib.first_few(
    f"{all_names[row]!r} ({values[row]:.2f})" for row in np.argsort(values)[:5]
  )
  report.say(
    "least similar to all others, by the mean cosine to the "
    f"{similar_images.NEIGHBORS} nearest (median {np.median(values):.2f}): "
    f"{least}"
  )


def _readable(
  checks: Sequence[inspect.ImageCheck], seen: set[bytes]
) -> list[int]:
  """Places of images to compare: each content once."""
  places = []
  for place, one in enumerate(checks):
    if not one.reason and one.digest not in seen:
      seen.add(one.digest)
      places.append(place)
  if len(places) > MOST_IMAGES:
    chosen = np.linspace(0, len(places) - 1, MOST_IMAGES).astype(int)
    places = [places[k] for k in chosen]
  return places


def _embedded(
  classifier: classifier_lib.Classifier,
  group: inspect.Group,
  places: Sequence[int],
) -> tuple[similar_images.ImageSet, list[str]]:
  """Embeddings, pictures and names of a group, read chunk by chunk."""
  vectors, pictures, kept = [], [], []
  settings = classifier.preprocessing
  for start in range(0, len(places), _AT_ONCE):
    chosen = places[start : start + _AT_ONCE]
    rows = [int(group.rows[place]) for place in chosen]
    images = image_list.ImageList(
      [_image(group.images, row, settings) for row in rows],
      settings,
      names=[group.images.name(row) for row in rows],
    )
    for batch, embeddings in classifier.embedded(images, skip_bad=True):
      vectors.append(embeddings)
      pictures.append(similar_images.shrink(batch.pixels))
      kept += [chosen[k] for k in batch.places]
  one = similar_images.ImageSet(
    name=_TITLES.get(group.name, group.name),
    embeddings=np.concatenate(vectors),
    pictures=np.concatenate(pictures),
    labels=group.labels[kept]
    if group.name != "unlabelled"
    else np.full(len(kept), -1),
  )
  return one, [group.images.name(int(group.rows[place])) for place in kept]


def _image(
  images: catalog.Reader, row: int, settings: preprocessing.Preprocessing
) -> np.ndarray | str:
  """Input of a classifier: pixels, or a path that it reads itself."""
  if isinstance(images, inspect.ArrayImages):
    return images.pixels[row]
  if isinstance(images, catalog.Files):
    return images.path(row)
  return decode.image(
    images.read(row),
    name=images.name(row),
    max_pixels=settings.max_pixels,
    white_level=settings.white_level,
  )


def _pairs(
  report: findings.Report,
  kind: similar_images.PairKind,
  sets: Sequence[similar_images.ImageSet],
  names: Sequence[Sequence[str]],
) -> None:
  """Reports the near duplicates of two groups, or of one."""
  first, second = sets[kind.first], sets[kind.second]
  listed = text_lib.first_few(
    (
      f"{names[kind.first][p.first]!r} and {names[kind.second][p.second]!r}"
      for p in kind.pairs
    ),
    most=_MOST_PAIRS,
  )
  pairs = text_lib.count(kind.count, "pair")
  if first is second:
    text = f"{pairs} of near duplicates among the {first.name} images: {listed}"
  else:
    text = (
      f"{pairs} of near duplicates among both the {first.name} and the "
      f"{second.name} images: {listed}"
    )
  if first.is_held_out != second.is_held_out:
    report.warning(
      f"{text}. Accuracy on images that were also trained on is too high: "
      "compare them, and remove copies from one of the two"
    )
  elif kind.conflicts:
    report.warning(
      f"{text}. {kind.conflicts:,} have different labels: keep the right one"
    )
  else:
    report.say(text)
