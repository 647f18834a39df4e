"""Names of a run's training images, to say later what has changed."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from etils import epath

from paws_jax import json_text
from paws_jax import text
from paws_jax.runs import files

IMAGES = "images.json.gz"
_MAX_BYTES = 2**28
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class Images:
  """The training images of a data set on disk.

  Attributes:
    names: of each, in the order of their rows.
    classes: name of the class of each; "" without a label.
  """

  names: Sequence[str]
  classes: Sequence[str]


ListImages = Callable[[], Images]


def write(workdir: epath.Path, images: Images) -> None:
  """Writes the names into a work directory."""
  content = json.dumps(dataclasses.asdict(images), separators=(",", ":"))
  # Without the time, equal names make equal files.
  files.replace_output(
    workdir / IMAGES, gzip.compress(content.encode("ascii"), mtime=0)
  )


def read(workdir: epath.Path) -> Images | None:
  """Reads them; None when there are none, or they cannot be read."""
  path = workdir / IMAGES
  if not path.exists():
    return None
  try:
    with gzip.open(io.BytesIO(files.read_bytes(path))) as file:
      stored = json_text.parse(file.read(_MAX_BYTES))
    images = Images(stored["names"], stored["classes"])
    if len(images.names) != len(images.classes):
      return None
    if not all(isinstance(n, str) for n in (*images.names, *images.classes)):
      return None
  except (OSError, EOFError, ValueError, KeyError, TypeError):
    return None
  return images


def describe(
  stored: Mapping[str, Any],
  split: Mapping[str, Any],
  before: Images | None,
  now: Images | None,
) -> list[str]:
  """Says how the data differ from those of a run, with the first names.

  Args:
    stored: split.json of the run.
    split: that of the data as they are now.
    before: images of the run; None: not known.
    now: images as they are now; None: they have no names.
  """
  lines = []
  if before is not None and now is not None:
    lines += _files(before, now)
  elif stored.get("fingerprint") != split.get("fingerprint"):
    lines.append("the images, or the labels of some, are others")
  return lines + _labelled(stored, split, before, now)


def _files(before: Images, now: Images) -> list[str]:
  """Lines about images that came, went or have another label."""
  old = dict(zip(before.names, before.classes, strict=True))
  new = dict(zip(now.names, now.classes, strict=True))
  both = [name for name in new if name in old and old[name] != new[name]]
  lines = [
    _line("new training images", (n for n in new if n not in old), new),
    _line(
      "training images that are gone", (n for n in old if n not in new), old
    ),
    _line("images with a label now", (n for n in both if not old[n]), new),
    _line("images without a label now", (n for n in both if not new[n]), old),
    _line(
      "images with another label", (n for n in both if old[n] and new[n]), new
    ),
  ]
  classes = (sorted(set(part.values()) - {""}) for part in (old, new))
  gone, came = next(classes), next(classes)
  lines += [
    _line("new classes", (name for name in came if name not in gone)),
    _line("classes that are gone", (name for name in gone if name not in came)),
  ]
  return [line for line in lines if line]


def _labelled(
  stored: Mapping[str, Any],
  split: Mapping[str, Any],
  before: Images | None,
  now: Images | None,
) -> list[str]:
  """Lines about the choice of labelled images."""
  old, new = _chosen(stored, before), _chosen(split, now)
  if old is None or new is None:
    return []
  then, today = set(old), set(new)
  if then == today:
    return []
  lines = [f"labelled images: {len(old):,} then, {len(new):,} now"]
  if (before is None) == (now is None):
    lines += [
      _line("labelled only now", (name for name in new if name not in then)),
      _line("labelled only then", (name for name in old if name not in today)),
    ]
  return [line for line in lines if line]


def _chosen(
  split: Mapping[str, Any], images: Images | None
) -> list[str] | None:
  """Names of the labelled images of a split, or their rows."""
  rows = split.get("labelled_ids")
  if not isinstance(rows, list) or not all(type(row) is int for row in rows):
    return None
  if images is None:
    return [f"row {row}" for row in rows]
  if any(not 0 <= row < len(images.names) for row in rows):
    return None
  return [images.names[row] for row in rows]


def _line(
  title: str, names: Iterable[str], classes: Mapping[str, str] | None = None
) -> str:
  """Formats e.g. "new training images (9): a/1.png [a], ..."; or ""."""
  names = list(names)
  if not names:
    return ""
  listed = [
    f"{name} [{classes[name]}]" if classes and classes[name] else name
    for name in names
  ]
  return f"{title} ({len(names):,}): {text.first_few(listed, most=_LISTED)}"
