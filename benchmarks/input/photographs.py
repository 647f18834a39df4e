"""JPEG files like photographs, made where none are at hand."""

from __future__ import annotations

import pathlib

import numpy as np
from PIL import Image

_HEIGHT, _WIDTH = 375, 500
_KINDS = (".jpg", ".jpeg")


def find(root: pathlib.Path) -> list[str]:
  """Names of the JPEGs below a directory, relative to it, in order."""
  paths = (p for p in root.rglob("*") if p.suffix.lower() in _KINDS)
  return sorted(path.relative_to(root).as_posix() for path in paths)


def find_or_make(root: pathlib.Path, count: int) -> list[str]:
  """As `find`, after `make` where there is nothing at all.

  Raises:
    ValueError: the directory has no JPEGs, but something else: it may be
      another than was meant.
    OSError: it cannot be read or written.
  """
  found = find(root)
  if found:
    return found
  other = next(root.iterdir(), None) if root.exists() else None
  if other is not None:
    raise ValueError(
      f"--dir={root} has no JPEGs ({', '.join(_KINDS)}), but is not empty "
      f"({other.name}): give a directory of JPEGs, or a new or empty one, for "
      "photographs to be made there."
    )
  make(root, count)
  print(f"made: {count} photographs in {root}", flush=True)
  return find(root)


def make(root: pathlib.Path, count: int) -> None:
  """Writes JPEGs of 500 x 375 pixels and about 100 kB, always the same ones.

  They are cut from scikit-learn's two photographs, mirrored or not, with noise
  on top, without which they would be smaller and faster to decode.

  Args:
    root: directory; made if it does not exist.
    count: files, 00000.jpg and so on.
  """
  from sklearn import datasets

  photographs = datasets.load_sample_images().images
  rng = np.random.default_rng(0)
  # A few fields, moved about: to draw so many numbers takes longer than all
  # the rest.
  noise = rng.normal(0, 7, (4, _HEIGHT, _WIDTH, 3))
  root.mkdir(parents=True, exist_ok=True)
  for k in range(count):
    photograph = photographs[k % len(photographs)]
    height, width = photograph.shape[:2]
    cut_width = int(rng.integers(300, 560))
    cut_height = cut_width * _HEIGHT // _WIDTH
    left = int(rng.integers(0, width - cut_width + 1))
    top = int(rng.integers(0, height - cut_height + 1))
    cut = photograph[top : top + cut_height, left : left + cut_width]
    cut = cut[:, :: rng.choice([-1, 1])]
    resized = Image.fromarray(cut).resize(
      (_WIDTH, _HEIGHT), Image.Resampling.BICUBIC
    )
    field = np.roll(noise[k % len(noise)], rng.integers(0, _WIDTH, 2), (0, 1))
    pixels = np.clip(np.asarray(resized) + field, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(root / f"{k:05d}.jpg", quality=94)
