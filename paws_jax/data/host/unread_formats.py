"""Names of the image formats that are not read, for messages."""

from __future__ import annotations

import io
import re
from typing import Literal

from paws_jax import text

# First bytes of a file.
_STARTS = (
  (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "a JPEG XL image"),
  (b"\xff\x0a", "a JPEG XL image"),
  (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
  (b"\xff\x4f\xff\x51", "a JPEG 2000 image"),
  (b"8BPS", "a Photoshop document"),
  (b"%PDF", "a PDF document"),
  (b"v/1\x01", "an OpenEXR image"),
  (b"\x89HDF", "an HDF5 file"),
  (b"SIMPLE  =", "a FITS image"),
  (b"PK\x03\x04", "a ZIP archive"),
  (b"\x1f\x8b", "a gzip archive"),
  (b"Rar!", "a RAR archive"),
  (b"7z\xbc\xaf", "a 7z archive"),
  (b"\0\0\x01\0", "an icon"),
  (b"\x93NUMPY", "a NumPy array"),
  (b"gimp xcf", "a GIMP document"),
  *((b"P%d" % k, "a netpbm image") for k in range(1, 8)),
)
# Files that are no images at all.
_NO_IMAGES = (
  (
    b"version https://git-lfs",
    "the place of a file that Git LFS has not fetched: run git lfs pull",
  ),
  (b"\0\x05\x16\x07", "what macOS keeps beside an image: remove it"),
  (b"\0\x05\x16\0", "what macOS keeps beside an image: remove it"),
)
# First bytes of images that are read, if the rest is as it should be.
_READ = (
  (b"\xff\xd8\xff", "JPEG"),
  (b"\x89PNG\r\n\x1a\n", "PNG"),
  (b"GIF8", "GIF"),
  (b"BM", "BMP"),
)
# Brands after "ftyp" in the files of the ISO base media format.
_BRANDS = {
  b"avif": "an AVIF image",
  b"avis": "an AVIF image",
  **dict.fromkeys(
    (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
    "a HEIC image",
  ),
  b"crx ": "a raw image of a camera",
}
_CONVERT = "whatever its name: convert it to JPEG or PNG"
_CONVERT_BITS = "convert it to gray or RGB of 8 or 16 bits"
# Where width and height stand, bytes of each, and their order.
_SIZES: dict[str, tuple[tuple[int, ...], int, Literal["big", "little"]]] = {
  "PNG": ((16, 20), 4, "big"),
  "GIF": ((6, 8), 2, "little"),
  "BMP": ((18, 22), 4, "little"),
}
_FRAME = re.compile(
  rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]..(.)(..)(..)", re.DOTALL
)

_WIDTH, _HEIGHT = 256, 257
_BITS, _COMPRESSION, _PHOTOMETRIC = 258, 259, 262
_SAMPLES, _SAMPLE_FORMAT = 277, 339
_PHOTOMETRICS = {
  0: "gray, white is zero",
  1: "gray",
  2: "RGB",
  3: "palette",
  4: "transparency mask",
  5: "CMYK",
  6: "YCbCr",
  8: "CIE L*a*b*",
  9: "ICC L*a*b*",
  10: "ITU L*a*b*",
  32803: "color filter array",
  34892: "linear raw",
}
_FORMATS = {
  1: "unsigned integers",
  2: "signed integers",
  3: "floating-point numbers",
  5: "complex integers",
  6: "complex numbers",
}


def describe(content: bytes) -> str:
  """Returns the reason why Pillow does not recognize a file."""
  if not content:
    return "the file is empty"
  if content.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
    return "it is text (HTML or XML), not an image"
  if not content.strip(b"\0"):
    return f"all of its {len(content):,} bytes are zero: copy it once more"
  for start, kind in _NO_IMAGES:
    if content.startswith(start):
      return f"it is {kind}"
  for start, kind in _STARTS:
    if content.startswith(start):
      return f"it is {kind}, {_CONVERT}"
  if content[4:8] == b"ftyp":
    return f"it is {_media(content)}, {_CONVERT}"
  if content[128:132] == b"DICM":
    return f"it is a DICOM file, {_CONVERT}"
  if content[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
    described = _tiff(content)
    if described:
      return f"it is {described}: {_CONVERT_BITS}"
  for start, kind in _READ:
    if content.startswith(start):
      return f"it begins as a {kind}, but {_header_problem(content, kind)}"
  return (
    f"it is not an image of a known format ({len(content)} bytes, the first "
    f"{content[:8]!r})"
  )


def _header_problem(content: bytes, kind: str) -> str:
  """Returns what is wrong with the header of a JPEG, PNG, GIF or BMP."""
  places: tuple[int, ...]
  order: Literal["big", "little"]
  if kind == "JPEG":
    # A start of frame: length, bits of a sample, height and width.
    frame = _FRAME.search(content)
    if frame and frame[1] != b"\x08":
      return f"has {frame[1][0]} bits a sample: {_CONVERT_BITS}"
    places = (frame.start(3), frame.start(2)) if frame else ()
    length, order = 2, "big"
  else:
    places, length, order = _SIZES[kind]
  fields = [content[place : place + length] for place in places]
  size = [int.from_bytes(field, order) for field in fields if field]
  if not all(size):
    return f"has no pixel ({' x '.join(map(str, size))})"
  return "its header is damaged or of a kind that is not read"


def _media(content: bytes) -> str:
  """Names a file of the ISO base media format by its brands."""
  # The size of the box, "ftyp", the main brand, a version, other brands.
  size = min(int.from_bytes(content[:4], "big"), 256)
  brands = [content[8:12]]
  brands += [content[at : at + 4] for at in range(16, size - 3, 4)]
  # Of an AVIF image the main brand may be that of HEIC's container.
  if b"avif" in brands:
    return _BRANDS[b"avif"]
  known = (_BRANDS[brand] for brand in brands if brand in _BRANDS)
  return next(known, "a video or another file of the MP4 family")


def _tiff(content: bytes) -> str:
  """Describes the pixels of a TIFF; "" where its tags cannot be read."""
  from PIL import TiffImagePlugin

  # Damaged tags raise nearly anything.
  try:
    file = io.BytesIO(content)
    tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(8))
    if content[2:4] in (b"+\0", b"\0+"):
      file.seek(0)
      tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16))
    file.seek(tags.next)
    tags.load(file)
    if not (tags.get(_WIDTH) and tags.get(_HEIGHT)):
      return ""
    bits = max(tags.get(_BITS, (1,)))
    bands = int(tags.get(_SAMPLES, 1))
    kinds = tags.get(_SAMPLE_FORMAT, (1,))
    photometric = int(tags.get(_PHOTOMETRIC, 0))
    compression = int(tags.get(_COMPRESSION, 1))
  except Exception:
    return ""
  kind = _FORMATS.get(max(kinds), "values of an unknown kind")
  color = _PHOTOMETRICS.get(photometric, f"photometric {photometric}")
  known = compression in TiffImagePlugin.COMPRESSION_INFO
  return (
    f"a TIFF of {text.count(bands, 'band')} of {bits}-bit "
    f"{kind} ({color}"
    + ("" if known else f", compression {compression}")
    + "), which is not read"
  )
