"""Inspection of the files of a data set: damage, duplicates, wrong names.

It runs on the host; `--task=doctor` prints the results.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from paws_jax import errors
from paws_jax.data.host import evaluation_images
from paws_jax.data.host import pixel_values
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog
from paws_jax.doctor import check_cache
from paws_jax.doctor import measure
from paws_jax.parallel import cpu_devices

# At most so many unlabelled images are read, evenly spaced.
MAX_UNLABELLED = 200_000

_CHUNK_SIZE = 1024


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayImages:
  """A `catalog.Reader` of images in memory; the bytes are the pixels."""

  title: str
  pixels: np.ndarray

  def __len__(self) -> int:
    return len(self.pixels)

  def name(self, index: int) -> str:
    """Returns a name for messages, such as "train row 12"."""
    return f"{self.title} row {index}"

  def key(self, index: int) -> str:
    """Returns the name."""
    return self.name(index)

  def size(self, index: int) -> int:
    """Returns the number of bytes of the pixels."""
    return self.pixels[index].nbytes

  def read(self, index: int) -> bytes:
    """Returns the pixels as bytes."""
    return self.pixels[index].tobytes()


def as_catalog(arrays: arrays_lib.Arrays) -> catalog.Catalog:
  """Returns the catalog of a data set in memory."""
  return catalog.Catalog(
    name=arrays.name,
    class_names=arrays.class_names,
    train=catalog.Part(
      ArrayImages("train", arrays.train_images), arrays.train_labels
    ),
    test=catalog.Part(
      ArrayImages("test", arrays.test_images), arrays.test_labels
    ),
  )


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """A group of images with one purpose.

  Attributes:
    name: "labelled", "unlabelled", "val" or "test".
    images: reader of the images.
    rows: int [n], the rows of `images` to read.
    labels: int32 [n], the class of each row, -1 where it is unknown.
    num_images: size of the group, at least n.
  """

  name: str
  images: catalog.Reader
  rows: np.ndarray
  labels: np.ndarray
  num_images: int


def image_groups(
  listing: catalog.Catalog, labelled_ids: np.ndarray
) -> list[Group]:
  """Groups the images of a catalog by purpose, without empty groups.

  Args:
    listing: the catalog.
    labelled_ids: int [m], training images whose label is used. The others
      count as unlabelled, even where their class is known.
  """
  labels = listing.train.labels
  others = np.setdiff1d(np.arange(len(labels)), labelled_ids)
  num_others = len(others)
  if num_others > MAX_UNLABELLED:
    places = np.linspace(0, num_others - 1, MAX_UNLABELLED)
    others = others[places.astype(np.int64)]
  parts = [
    ("labelled", listing.train, np.asarray(labelled_ids), len(labelled_ids)),
    ("unlabelled", listing.train, others, num_others),
  ]
  for name in ("val", "test"):
    part = getattr(listing, name)
    if part is not None:
      parts.append((name, part, np.arange(len(part.labels)), len(part.labels)))
  return [
    Group(name, part.images, rows, part.labels[rows], num_images)
    for name, part, rows, num_images in parts
    if num_images
  ]


class ImageCheck(NamedTuple):
  """Result of reading and decoding one image.

  Attributes:
    digest: hash of the bytes; empty where they could not be read.
    height: in pixels; 0 where the image could not be decoded.
    width: as height.
    reason: why the image cannot be used; "": it can.
    values: range of its values; None where it could not be decoded.
  """

  digest: bytes
  height: int
  width: int
  reason: str
  values: pixel_values.ValueRange | None = None

  def if_evaluated(self, resize: int) -> ImageCheck:
    """Returns the result of an image that an evaluation resizes.

    Args:
      resize: short side in pixels; 0: it is not resized.
    """
    if self.reason:
      return self
    reason = evaluation_images.too_narrow(
      self.height, self.width, resize=resize
    )
    return self._replace(reason=reason)

  def to_fields(self) -> list[Any]:
    """Returns the fields for JSON."""
    return [self.digest.hex(), *self[1:]]

  @classmethod
  def from_fields(cls, fields: list[Any]) -> ImageCheck:
    """Makes a result of what `to_fields` has returned."""
    digest, height, width, reason, values = fields
    values = values and pixel_values.ValueRange(*values)
    return cls(bytes.fromhex(digest), height, width, reason, values)


def check_image(
  images: catalog.Reader, row: int, decode_size: measure.Decode
) -> ImageCheck:
  """Reads and decodes one image."""
  try:
    content = images.read(row)
  except OSError as error:
    return ImageCheck(b"", 0, 0, f"it cannot be read ({error})")
  digest = hashlib.blake2b(content, digest_size=16).digest()
  name = images.name(row)
  try:
    height, width, values = decode_size(content, name)
  except errors.BadImageError as error:
    # The report gives the remedy once for all images.
    return ImageCheck(digest, 0, 0, error.reason)
  return ImageCheck(digest, height, width, "", values)


def check_images(
  groups: Sequence[Group],
  decode_size: measure.Decode,
  *,
  progress: Callable[[int, int], None],
  cache: check_cache.CheckCache | None = None,
  eval_resize: int = 0,
) -> dict[str, list[ImageCheck]]:
  """Reads each image of all groups once, but those that are known.

  Args:
    groups: the groups.
    decode_size: see `measure.Decode`.
    progress: called with the number of images read and the total.
    cache: what is known from earlier calls; it gets what is found. None: all
      images are read, and nothing is kept.
    eval_resize: short side, in pixels, to which evaluated images (all but the
      unlabelled ones) are resized; 0: they are not resized.

  Returns:
    The results by name of the group, in the order of its rows.
  """
  checks: dict[str, list[ImageCheck]] = {group.name: [] for group in groups}
  total = sum(len(group.rows) for group in groups)
  done = 0
  cache = cache or check_cache.CheckCache(None)
  with concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
    for group in groups:
      resize = 0 if group.name == "unlabelled" else eval_resize
      # In chunks: the pool would hold a future for each of a million rows.
      for rows in _chunks(group.rows):
        known = cache.look_up(group.images, rows)
        found = {}
        check_row = functools.partial(_check_row, group, decode_size, known)
        for row, check in zip(rows, pool.map(check_row, rows), strict=True):
          if row not in known and not check.reason:
            found[row] = check.to_fields()
          checks[group.name].append(check.if_evaluated(resize))
          done += 1
          progress(done, total)
        cache.keep(found)
  return checks


def _check_row(
  group: Group,
  decode_size: measure.Decode,
  known: Mapping[int, list[Any]],
  row: int,
) -> ImageCheck:
  if row in known:
    return ImageCheck.from_fields(known[row])
  return check_image(group.images, row, decode_size)


def _chunks(rows: np.ndarray) -> Iterator[list[int]]:
  for start in range(0, len(rows), _CHUNK_SIZE):
    yield rows[start : start + _CHUNK_SIZE].tolist()


class Duplicates(NamedTuple):
  """Images with equal bytes in two groups, or among the labelled ones.

  Attributes:
    first: name of the group of the first image of each pair.
    second: that of the second; equal to `first` for labelled images.
    pairs: names of the images: in two groups one pair per content.
    one_class: whether the images of each pair, both labelled, have one label.
  """

  first: str
  second: str
  pairs: list[tuple[str, str]]
  one_class: bool = False


def duplicates(
  groups: Sequence[Group], checks: dict[str, list[ImageCheck]]
) -> list[Duplicates]:
  """Finds equal file contents where they do harm.

  That is in two groups, except for labelled and unlabelled images, which both
  serve to train; and among labelled images, with different labels or one.
  """
  first_places: dict[str, dict[bytes, int]] = {}
  found = []
  for group in groups:
    places: dict[bytes, int] = {}
    conflicts, copies = [], []
    # The first one of each content and label.
    of_class: dict[tuple[bytes, int], int] = {}
    for place, check in enumerate(checks[group.name]):
      if not check.digest:
        continue
      other = places.setdefault(check.digest, place)
      label = int(group.labels[place])
      same = of_class.setdefault((check.digest, label), place)
      if same != place:
        # Those that cannot be read have a finding of their own.
        if check.height:
          copies.append((_name(group, same), _name(group, place)))
      elif other != place:
        conflicts.append((_name(group, other), _name(group, place)))
    for pairs, one_class in ((conflicts, False), (copies, True)):
      if group.name == "labelled" and pairs:
        found.append(Duplicates(group.name, group.name, pairs, one_class))
    for earlier in groups:
      if earlier is group:
        break
      if (earlier.name, group.name) == ("labelled", "unlabelled"):
        continue
      others = first_places[earlier.name]
      pairs = [
        (_name(earlier, others[digest]), _name(group, place))
        for digest, place in places.items()
        if digest in others
      ]
      if pairs:
        found.append(Duplicates(earlier.name, group.name, pairs))
    first_places[group.name] = places
  return found


def _name(group: Group, place: int) -> str:
  return group.images.name(int(group.rows[place]))
