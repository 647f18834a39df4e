"""Figures of a run and of its views, as PNG files."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from paws_jax.monitoring import reference_curves
from paws_jax.plots import curves
from paws_jax.plots import embedding_map
from paws_jax.runs import files
from paws_jax.runs import metrics

TRAINING = "training.png"
VIEWS = "views.png"

# Pixels between the tiles of a sheet, and between its groups of tiles.
_GAP, _WIDE_GAP = 4, 16
# Sides in pixels to which crops are enlarged and originals are reduced.
_CROP_SIDE, _ORIGINAL_SIDE = 96, 256
_FONT_SIZE = 13
# Strips stand side by side up to this width.
_SHEET_WIDTH = 1000


def training_figure(
  path: epath.Path,
  rows: Sequence[Mapping[str, Any]],
  *,
  queries: np.ndarray,
  query_labels: np.ndarray,
  supports: np.ndarray,
  support_labels: np.ndarray,
  class_names: Sequence[str],
  losses: Sequence[str] = metrics.LOSSES,
  reference: reference_curves.Reference | None = None,
) -> None:
  """Draws curves, findings about health, and a map of the embeddings.

  Args:
    path: the PNG to write.
    rows: lines of metrics.jsonl.
    queries: [n, D] embeddings of test images; n may be 0.
    query_labels: [n] classes.
    supports: [N, D] embeddings of labelled images.
    support_labels: [N] classes.
    class_names: names by class.
    losses: metrics that the method minimizes, its `shown_losses`.
    reference: curves to draw behind those of the run.
  """
  # Imported here: a training run needs them only at its end.
  from matplotlib.backends import backend_agg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(17.5, 5.2), layout="constrained")
  backend_agg.FigureCanvasAgg(figure)
  grid = figure.add_gridspec(2, 3, width_ratios=(1, 1, 1.15))
  curves.draw(figure, grid, rows, losses=losses, reference=reference)
  embedding_map.draw(
    figure.add_subplot(grid[:, 2]),
    queries,
    query_labels,
    supports,
    support_labels,
    class_names,
  )
  file = io.BytesIO()
  figure.savefig(file, dpi=110)
  files.replace_output(path, file.getvalue(), noted=False)


@dataclasses.dataclass(frozen=True, eq=False)
class Strip:
  """An image and its views on a sheet.

  Attributes:
    caption: text above the image.
    original: uint8 [H, W, 1 or 3].
    views: groups of crops, uint8 [h, w, 1 or 3] each; crops of a group have
      the same size.
  """

  caption: str
  original: np.ndarray
  views: tuple[Sequence[np.ndarray], ...]


def views_sheet(path: epath.Path, strips: Sequence[Strip]) -> None:
  """Draws images beside their views, several in a row where they fit.

  Tiny images are enlarged by integers: each pixel becomes a square.

  Args:
    path: the PNG to write.
    strips: at least one.
  """
  from PIL import Image

  blocks = [_strip(strip) for strip in strips]
  widest = max(_SHEET_WIDTH, *(block.shape[1] for block in blocks))
  lines: list[list[np.ndarray]] = [[]]
  used = 0
  for block in blocks:
    if lines[-1] and used + block.shape[1] + _WIDE_GAP > widest:
      lines.append([])
      used = 0
    lines[-1].append(block)
    used += block.shape[1] + _WIDE_GAP
  rows = [join_tiles(line, axis=1, gap=_WIDE_GAP) for line in lines]
  sheet = join_tiles(rows, axis=0, gap=_WIDE_GAP)
  sheet = np.pad(sheet, [(_GAP, _GAP)] * 2 + [(0, 0)], constant_values=255)
  file = io.BytesIO()
  Image.fromarray(sheet).save(file, "PNG")
  files.replace_output(path, file.getvalue())


def _strip(strip: Strip) -> np.ndarray:
  """Draws an image with views and caption, uint8 [height, width, 3]."""
  largest = max(len(crop) for group in strip.views for crop in group)
  scale = max(1, round(_CROP_SIDE / largest))
  groups = [_original(strip.original, max(_ORIGINAL_SIDE, largest), scale)]
  for crops in strip.views:
    tiles = [_enlarge(crop, scale) for crop in crops]
    # Small crops are stacked to the height of the large ones.
    high = max(1, (scale * largest + _GAP) // (len(tiles[0]) + _GAP))
    columns = [
      join_tiles(tiles[i : i + high], axis=0)
      for i in range(0, len(tiles), high)
    ]
    groups.append(join_tiles(columns, axis=1))
  body = join_tiles(groups, axis=1, gap=_WIDE_GAP)
  return join_tiles([_caption(strip.caption, body.shape[1]), body], axis=0)


def _original(image: np.ndarray, longest: int, scale: int) -> np.ndarray:
  """Enlarges an image like its crops up to a size, or reduces it to that."""
  from PIL import Image

  scale = min(scale, max(1, longest // max(image.shape[:2])))
  shown = Image.fromarray(np.ascontiguousarray(_enlarge(image, scale)))
  shown.thumbnail((longest, longest))
  return np.asarray(shown)


def _enlarge(image: np.ndarray, scale: int) -> np.ndarray:
  rgb = np.broadcast_to(image, (*image.shape[:2], 3))
  return rgb.repeat(scale, axis=0).repeat(scale, axis=1)


def _caption(text: str, width: int) -> np.ndarray:
  """Draws a line of text, cut to a width in pixels."""
  from PIL import Image
  from PIL import ImageDraw
  from PIL import ImageFont

  font = ImageFont.load_default(_FONT_SIZE)
  # The font that comes with Pillow has no other letters.
  text = text.encode("latin-1", "replace").decode("latin-1")
  if font.getlength(text) > width:
    while text and font.getlength(f"{text}...") > width:
      text = text[:-1]
    text += "..."
  line = Image.new("RGB", (width, _FONT_SIZE + 5), "white")
  ImageDraw.Draw(line).text((0, 1), text, fill="black", font=font)
  return np.asarray(line)


def to_levels(
  views: np.ndarray, *, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
  """Undoes the normalization of views.

  Args:
    views: float [..., Ch].
    mean: mean of each channel, in units of the full range.
    std: standard deviation of each channel, in the same units.

  Returns:
    uint8 [..., Ch].
  """
  levels = np.asarray(views) * np.asarray(std) + np.asarray(mean)
  return np.round(np.clip(255 * levels, 0, 255)).astype(np.uint8)


def join_tiles(
  tiles: Sequence[np.ndarray], *, axis: int, gap: int = _GAP
) -> np.ndarray:
  """Joins images in a row or column, on white.

  Args:
    tiles: uint8 [h, w, 3], of any sizes.
    axis: 0: below each other, 1: side by side.
    gap: pixels between them.

  Returns:
    uint8 [height, width, 3].
  """
  other = 1 - axis
  longest = max(tile.shape[other] for tile in tiles)
  padded = []
  for number, tile in enumerate(tiles, start=1):
    room = [(0, 0), (0, 0), (0, 0)]
    room[axis] = (0, gap if number < len(tiles) else 0)
    room[other] = (0, longest - tile.shape[other])
    padded.append(np.pad(tile, room, constant_values=255))
  return np.concatenate(padded, axis=axis)
