"""Looks into the files of a data set: what is damaged, double or misnamed.

All of it runs on the host; `--task=doctor` prints what is found here.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hashlib
import io
import os
import unicodedata
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from paws_jax import errors
from paws_jax.data.host import decode
from paws_jax.data.host import evaluation_images
from paws_jax.data.sources import arrays as arrays_lib
from paws_jax.data.sources import catalog
from paws_jax.parallel import cpu_devices

# Of more unlabelled images than this, so many are read, evenly spread.
MOST_UNLABELLED = 200_000

_AT_ONCE = 1024
_SPLIT_NAMES = frozenset(
  name
  for names in (
    "train training val valid validation dev eval evaluation test testing",
    "holdout unlabelled unlabeled labelled labeled unsupervised",
    "images image imgs img pictures photos data dataset",
  )
  for name in names.split()
)

# Height and width of an encoded image of that name; raises BadImageError.
Decode = Callable[[bytes, str], tuple[int, int]]


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayImages:
  """Images in memory, as a `catalog.Reader`: their bytes are the pixels."""

  title: str
  pixels: np.ndarray

  def __len__(self) -> int:
    return len(self.pixels)

  def name(self, index: int) -> str:
    """E.g. "train row 12"."""
    return f"{self.title} row {index}"

  def key(self, index: int) -> str:
    """As `name`."""
    return self.name(index)

  def size(self, index: int) -> int:
    """Bytes of the pixels."""
    return self.pixels[index].nbytes

  def read(self, index: int) -> bytes:
    """The pixels."""
    return self.pixels[index].tobytes()


def as_catalog(arrays: arrays_lib.Arrays) -> catalog.Catalog:
  """The catalogue of a data set in memory."""
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
  """Images that serve one purpose.

  Attributes:
    name: "labelled", "unlabelled", "val" or "test".
    images: where they are.
    rows: int [n], which of `images` are read.
    labels: int32 [n]: the class of each, -1 where it is not known.
    num_images: at least n; how many there are.
  """

  name: str
  images: catalog.Reader
  rows: np.ndarray
  labels: np.ndarray
  num_images: int


def image_groups(
  found: catalog.Catalog, labelled_ids: np.ndarray
) -> list[Group]:
  """The images of a catalogue by their purpose; empty groups are left out.

  Args:
    found: the catalogue.
    labelled_ids: int [m], training images whose label is used. The others are
      unlabelled, whatever is known of them.
  """
  labels = found.train.labels
  others = np.setdiff1d(np.arange(len(labels)), labelled_ids)
  num_others = len(others)
  if num_others > MOST_UNLABELLED:
    places = np.linspace(0, num_others - 1, MOST_UNLABELLED)
    others = others[places.astype(np.int64)]
  listed = [
    ("labelled", found.train, np.asarray(labelled_ids), len(labelled_ids)),
    ("unlabelled", found.train, others, num_others),
  ]
  for name in ("val", "test"):
    part = getattr(found, name)
    if part is not None:
      listed.append((name, part, np.arange(len(part.labels)), len(part.labels)))
  return [
    Group(name, part.images, rows, part.labels[rows], num_images)
    for name, part, rows, num_images in listed
    if num_images
  ]


class ImageCheck(NamedTuple):
  """What reading an image told."""

  # Of its bytes; empty where they could not be read.
  digest: bytes
  # In pixels; 0 where it could not be decoded.
  height: int
  width: int
  # Why it cannot be used; "": it can.
  reason: str


def check_image(
  images: catalog.Reader, row: int, decode_size: Decode, *, eval_resize: int = 0
) -> ImageCheck:
  """Reads and decodes one image; `eval_resize` as of `look_at_all`."""
  try:
    content = images.read(row)
  except OSError as error:
    return ImageCheck(b"", 0, 0, f"it cannot be read ({error})")
  digest = hashlib.blake2b(content, digest_size=16).digest()
  name = images.name(row)
  try:
    height, width = decode_size(content, name)
  except errors.BadImageError as error:
    # Its remedy is said once for all.
    return ImageCheck(digest, 0, 0, error.reason)
  reason = evaluation_images.too_narrow(height, width, resize=eval_resize)
  return ImageCheck(digest, height, width, reason)


def check_images(
  listed: Sequence[Group],
  decode_size: Decode,
  *,
  progress: Callable[[int, int], None],
  eval_resize: int = 0,
) -> dict[str, list[ImageCheck]]:
  """Reads all images of all groups, each once, several at a time.

  Args:
    listed: the groups.
    decode_size: see `Decode`.
    progress: called with how many are done, and of how many.
    eval_resize: pixels of the short side to which images are resized that are
      evaluated (all but unlabelled ones); 0: none are.

  Returns:
    By the name of the group: what was seen, in the order of its rows.
  """
  seen: dict[str, list[ImageCheck]] = {group.name: [] for group in listed}
  total = sum(len(group.rows) for group in listed)
  done = 0
  with concurrent.futures.ThreadPoolExecutor(cpu_devices.num_cores()) as pool:
    for group in listed:
      look_at = functools.partial(
        check_image,
        group.images,
        decode_size=decode_size,
        eval_resize=0 if group.name == "unlabelled" else eval_resize,
      )
      # Not all at once: the pool would hold a million promises.
      for rows in _portions(group.rows):
        for looked in pool.map(look_at, rows):
          seen[group.name].append(looked)
          done += 1
          progress(done, total)
  return seen


def _portions(rows: np.ndarray) -> Iterator[list[int]]:
  for start in range(0, len(rows), _AT_ONCE):
    yield rows[start : start + _AT_ONCE].tolist()


def file_size_in_pixels(*, max_pixels: int, canvas_size: int) -> Decode:
  """The `Decode` of image files: it decodes them whole.

  Args:
    max_pixels: see `decode.image`.
    canvas_size: as training decodes; the sizes told are those of the files.
  """

  def measure(content: bytes, name: str) -> tuple[int, int]:
    from PIL import Image

    decode.pillow_image(
      content, name=name, max_pixels=max_pixels, fit=canvas_size
    )
    # What has been decoded can be opened again, which reads a header.
    with Image.open(io.BytesIO(content), formats=decode.FORMATS) as opened:
      return opened.height, opened.width

  return measure


class Duplicates(NamedTuple):
  """Images with the same bytes in two groups, or with two labels.

  Attributes:
    first: name of a group.
    second: name of another one; the same for images with two labels.
    pairs: names of the images, one pair for each content.
  """

  first: str
  second: str
  pairs: list[tuple[str, str]]


def duplicates(
  listed: Sequence[Group], seen: dict[str, list[ImageCheck]]
) -> list[Duplicates]:
  """Finds the same file contents where they must not be.

  That is between any two groups, but for labelled and unlabelled images, which
  are trained on alike; and among the labelled ones under different labels.
  """
  first_places: dict[str, dict[bytes, int]] = {}
  shared = []
  for group in listed:
    places: dict[bytes, int] = {}
    contradicting = []
    for place, looked in enumerate(seen[group.name]):
      if not looked.digest:
        continue
      other = places.setdefault(looked.digest, place)
      if group.labels[other] != group.labels[place]:
        contradicting.append((_name(group, other), _name(group, place)))
    if group.name == "labelled" and contradicting:
      shared.append(Duplicates(group.name, group.name, contradicting))
    for earlier in listed:
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
        shared.append(Duplicates(earlier.name, group.name, pairs))
    first_places[group.name] = places
  return shared


def _name(group: Group, place: int) -> str:
  return group.images.name(int(group.rows[place]))


def similar_names(class_names: Sequence[str]) -> list[tuple[str, ...]]:
  """Names that differ in nothing but case, spaces or Unicode form."""
  by_form: dict[str, list[str]] = {}
  for name in class_names:
    plain = unicodedata.normalize("NFKC", name).casefold()
    # Once more, since case folding can undo it.
    plain = unicodedata.normalize("NFKC", "".join(plain.split()))
    by_form.setdefault(plain, []).append(name)
  return [tuple(names) for names in by_form.values() if len(names) > 1]


def split_names(class_names: Sequence[str]) -> list[str]:
  """Names that are those of parts of a data set rather than of classes."""
  return [name for name in class_names if name.casefold() in _SPLIT_NAMES]


def subfolders(images: catalog.Reader) -> list[str]:
  """Names of the folders inside the class folders, if all images lie there."""
  if not isinstance(images, catalog.Files):
    return []
  parts = [path.split(os.sep) for path in images.paths]
  if any(len(names) < 3 or names[0] == os.pardir for names in parts):
    return []
  return sorted({names[1] for names in parts})
