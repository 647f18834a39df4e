"""Values of the pixels of image files, and the RGB levels that they become.

The largest value that a sample can hold (255, 65,535, or 4,095 of 12 bits)
becomes 255; with a white level, that value does, in files that can hold it:
level = round(255 * value / white), at most 255. Where a file says that zero is
white, levels are counted from 255 down. Without a white level, 16-bit color has
its upper 8 bits, as Pillow reads it.

Values whose range is not known (signed, of 32 bits, floating-point) and layouts
that Pillow misreads are refused.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple

import numpy as np

if TYPE_CHECKING:
  import PIL.Image

_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_SUBSAMPLING = 530
_WHITE_IS_ZERO = 0
_YCBCR = 6
# Raw modes of 16-bit color, of which Pillow unpacks either byte of a sample.
_BOTH_BYTES = re.compile(r"(RGB|RGBX|RGBA);16([BLN])")
_CONVERT = "convert it to gray or RGB of 8 or 16 bits"


class UnreadValuesError(ValueError):
  """Pixels that cannot be read as levels; the message says which."""


class ValueRange(NamedTuple):
  """Smallest and largest value of an image, without its alpha channel.

  Attributes:
    low: smallest value, as the file has it.
    high: largest value.
    largest: the largest value that a sample of the file can hold.
  """

  low: int
  high: int
  largest: int


def rgb(
  opened: PIL.Image.Image,
  *,
  white_level: int,
  reopen: Callable[[], PIL.Image.Image] | None,
) -> PIL.Image.Image:
  """Converts an image to mode RGB, transparent pixels to white.

  Args:
    opened: image of any mode; it is loaded.
    white_level: value that becomes 255, if the file can hold it; 0: the largest
      one that it can hold.
    reopen: opens the same image again; None: it cannot be.

  Raises:
    UnreadValuesError: the values cannot be read as levels.
  """
  largest = prepare(opened)
  white = white_level if 0 < white_level <= largest else largest
  if largest == 65535 and white < largest and not _is_gray(opened):
    return _exact_color(opened, white, reopen)
  opened.load()
  if _is_gray(opened):
    return _deep_gray(opened, white)
  levels = None
  if white < largest:
    # A file of fewer than 8 bits has been spread over them.
    values = np.arange(256) * largest
    levels = np.minimum((2 * values + white) // (2 * white), 255).tolist()
  return _on_white(opened, largest, levels)


def prepare(opened: PIL.Image.Image) -> int:
  """Checks an image that is not loaded; returns the largest possible value.

  Raises:
    UnreadValuesError: the values cannot be read as levels.
  """
  bits = 8
  if opened.format == "TIFF":
    bits = _check_tiff(opened)
  elif opened.mode == "1":
    bits = 1
  elif opened.mode.startswith("I;16") or (
    # Pillow up to version 11 opened 16-bit PNG with 32 bits.
    opened.mode == "I" and opened.format == "PNG"
  ):
    bits = 16
  elif opened.mode[0] in "IF":
    kind = "32-bit integers" if opened.mode[0] == "I" else "floating-point"
    raise UnreadValuesError(f"its pixels are {kind}, range unknown: {_CONVERT}")
  elif opened.format == "PNG" and _tiles(opened):
    depth = re.search(r";(\d+)", str(_raw_mode(opened)))
    bits = int(depth[1]) if depth else 8
  return 255 if opened.mode in ("P", "PA") else 2**bits - 1


def value_range(opened: PIL.Image.Image, largest: int) -> ValueRange:
  """Returns the range of the values of an image that is loaded.

  Args:
    opened: the image.
    largest: as `prepare` returned it.
  """
  if _is_gray(opened):
    values = np.asarray(opened)
    return ValueRange(int(values.min()), int(values.max()), largest)
  extrema: Any = opened.convert("RGB").getextrema()
  low, high = min(x for x, _ in extrema), max(x for _, x in extrema)
  if largest == 65535:
    # Only the upper bytes are there.
    return ValueRange(low * 256, high * 256 + 255, largest)
  return ValueRange(low * largest // 255, high * largest // 255, largest)


def _check_tiff(opened: PIL.Image.Image) -> int:
  """Returns the bits of a sample; refuses what Pillow misreads."""
  tags = _tags(opened)
  bits = max(tags.get(_BITS, (1,)))
  formats = tags.get(_SAMPLE_FORMAT, (1,))
  is_raw = opened.info.get("compression") == "raw"
  problem = ""
  if 3 in formats:
    problem = f"its pixels are {bits}-bit floating-point numbers, range unknown"
  elif 2 in formats:
    problem = f"its pixels are {bits}-bit signed integers, range unknown"
  elif bits > 16:
    problem = f"its pixels are {bits}-bit integers, range unknown"
  elif is_raw and tags.get(_PHOTOMETRIC) == _YCBCR:
    if tuple(tags.get(_SUBSAMPLING, (2, 2))) != (1, 1):
      problem = "it is an uncompressed TIFF of subsampled YCbCr"
    elif opened.mode != "YCbCr":
      # Pillow before 13 takes the values for red, green and blue.
      problem = "it is an uncompressed TIFF of YCbCr"
  if tags.get(_PLANES, 1) == 2 and not problem:
    if opened.mode in ("LAB", "YCbCr"):
      problem = f"it is a TIFF of {opened.mode} in separate planes"
    elif bits == 16 and is_raw and len(opened.getbands()) > 1:
      problem = "it is an uncompressed TIFF of 16-bit color in separate planes"
  if problem:
    raise UnreadValuesError(f"{problem}: {_CONVERT}")
  return bits


def _is_gray(opened: PIL.Image.Image) -> bool:
  """Whether an image has one channel of more than 8 bits."""
  return opened.mode[0] == "I"


def _tags(opened: Any) -> Any:
  """Tags of a TIFF."""
  return opened.tag_v2


def _tiles(opened: Any) -> Any:
  """Pillow's descriptions of the parts of a file."""
  return opened.tile


def _raw_mode(opened: PIL.Image.Image) -> str:
  arguments = _tiles(opened)[0][3]
  return arguments if isinstance(arguments, str) else arguments[0]


def _deep_gray(opened: PIL.Image.Image, white: int) -> PIL.Image.Image:
  """Converts gray of more than 8 bits."""
  from PIL import Image

  values = np.asarray(opened).astype(np.int64)
  gray = _levels(values, white)
  # The specification has no default; Pillow takes white as zero.
  is_tiff = opened.format == "TIFF"
  if is_tiff and _tags(opened).get(_PHOTOMETRIC, 0) == _WHITE_IS_ZERO:
    gray = 255 - gray
  # The value that a PNG declares transparent.
  transparent = opened.info.get("transparency")
  if transparent is not None:
    gray = np.where(values == transparent, np.uint8(255), gray)
  return Image.fromarray(gray).convert("RGB")


def _levels(values: np.ndarray, white: int) -> np.ndarray:
  """Converts values to uint8 levels."""
  clipped = np.clip(values, 0, white).astype(np.int64)
  return ((510 * clipped + white) // (2 * white)).astype(np.uint8)


def _on_white(
  opened: PIL.Image.Image, largest: int, levels: list[int] | None
) -> PIL.Image.Image:
  """Converts an image of 8 bits; `levels` replaces those of its colors."""
  from PIL import Image

  transparent = opened.info.get("transparency")
  if opened.mode == "L" and largest < 255 and isinstance(transparent, int):
    # Pillow has spread the pixels over 8 bits, but not this one.
    opened.info["transparency"] = transparent * 255 // largest
  if not opened.has_transparency_data:
    image = opened if opened.mode == "RGB" else opened.convert("RGB")
    return image.point(levels * 3) if levels else image
  # Premultiplied modes convert to their plain forms only.
  plain = {"La": "LA"}.get(opened.mode)
  image = opened.convert(plain) if plain else opened
  image = image.convert("RGBA")
  if levels:
    image = image.point(levels * 3 + list(range(256)))
  white = Image.new("RGB", image.size, "white")
  white.paste(image, mask=image.getchannel("A"))
  return white


def _exact_color(
  opened: PIL.Image.Image,
  white: int,
  reopen: Callable[[], PIL.Image.Image] | None,
) -> PIL.Image.Image:
  """Converts 16-bit color; Pillow's modes have one byte of each sample."""
  from PIL import Image

  known = _tiles(opened) and _BOTH_BYTES.fullmatch(_raw_mode(opened))
  if opened.format == "TIFF" and _tags(opened).get(_PLANES, 1) == 2:
    known = None
  if not known or reopen is None or "transparency" in opened.info:
    raise UnreadValuesError(
      "its 16-bit color cannot be scaled to data.white_level: save it as RGB "
      "in PNG or TIFF, without transparency or planes, and give its path"
    )
  other: Any = reopen()
  order = "BL"[sys.byteorder == "little"] if known[2] == "N" else known[2]
  swapped = f"{known[1]};16{'B' if order == 'L' else 'L'}"
  other.tile = [_with_raw_mode(tile, swapped) for tile in other.tile]
  high, low = (np.asarray(each).astype(np.uint16) for each in (opened, other))
  colors = _levels(256 * high[..., :3] + low[..., :3], white)
  image = Image.fromarray(colors)
  if high.shape[2] == 4:
    image.putalpha(Image.fromarray(high[..., 3].astype(np.uint8)))
  return _on_white(image, 255, None)


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
  """Returns Pillow's description of a part of a file with another raw mode."""
  arguments = tile[3]
  arguments = (
    raw_mode if isinstance(arguments, str) else (raw_mode, *arguments[1:])
  )
  # Pillow before version 11 has plain tuples.
  changed = (*tile[:3], arguments)
  return type(tile)(*changed) if hasattr(tile, "_fields") else changed
