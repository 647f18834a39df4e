"""Bit depths and photometric interpretations, each with its written levels."""

import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.data.host import decode
from tests import image_files

# Black, a third, and white, of any number of bits from 2 on.
THIRDS = [0, 85, 255]
NEGATIVE = [255, 170, 0]


def _decode(content, white_level=0):
  return decode.image(
    content, name="a.tif", max_pixels=10**6, white_level=white_level
  )


def _thirds(bits):
  """Black, a third and white, [1, 3, 1]; of one bit, black, black and white."""
  largest = 2**bits - 1
  return np.array([0, largest // 3, largest]).reshape(1, 3, 1)


def _color(bits, bands=3):
  """Two pixels: black, a third and white; white, black and a third."""
  low, third, high = _thirds(bits).ravel().tolist()
  rest = [0] * (bands - 3)
  return np.array([[[low, third, high, *rest], [high, low, third, *rest]]])


COLOR = [[0, 85, 255], [255, 0, 85]]


def _gray(levels):
  return [[level] * 3 for level in levels]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_gray_in_a_png(bits):
  levels = THIRDS if bits > 1 else [0, 0, 255]
  content = image_files.png(_thirds(bits), bits=bits, color=0)
  assert _decode(content)[0].tolist() == _gray(levels)
  # A third is declared transparent, of one bit black.
  transparent = (int(_thirds(bits)[0, 1, 0])).to_bytes(2, "big")
  content = image_files.png(
    _thirds(bits), bits=bits, color=0, transparency=transparent
  )
  levels = [0, 255, 255] if bits > 1 else [255, 255, 255]
  assert _decode(content)[0].tolist() == _gray(levels)


@pytest.mark.parametrize("bits", [8, 16])
def test_color_and_alpha_in_a_png(bits):
  rgb = _color(bits)
  content = image_files.png(rgb, bits=bits, color=2)
  assert _decode(content)[0].tolist() == COLOR
  transparent = rgb[0, 0].astype(">u2").tobytes()
  content = image_files.png(rgb, bits=bits, color=2, transparency=transparent)
  assert _decode(content)[0].tolist() == [[255] * 3, [255, 0, 85]]
  # Opaque, and transparent.
  alpha = np.array([[[2**bits - 1], [0]]])
  content = image_files.png(np.concatenate([rgb, alpha], 2), bits=bits, color=6)
  assert _decode(content)[0].tolist() == [[0, 85, 255], [255] * 3]
  gray = np.concatenate([_thirds(bits)[:, :2], alpha], 2)
  content = image_files.png(gray, bits=bits, color=4)
  assert _decode(content)[0].tolist() == [[0] * 3, [255] * 3]


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_palette_in_a_png(bits):
  content = {
    "samples": np.array([[[0], [1]]]),
    "bits": bits,
    "color": 3,
    "palette": bytes([10, 20, 30, 200, 210, 220]),
  }
  got = _decode(image_files.png(**content))
  assert got[0].tolist() == [[10, 20, 30], [200, 210, 220]]
  got = _decode(image_files.png(**content, transparency=b"\xff\0"))
  assert got[0].tolist() == [[10, 20, 30], [255, 255, 255]]


# Photometric interpretations of TIFF: 0 white is zero, 1 black is zero, 2 RGB,
# 3 palette, 4 mask, 5 CMYK, 6 YCbCr, 8 CIELab, 9 ICCLab, 10 ITULab, 32803 CFA,
# 34892 linear raw; None: the tag is missing.
PHOTOMETRIC = (None, 0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 32803, 34892)
BITS = (1, 2, 4, 8, 12, 16, 32)
BANDS = {2: 3, 5: 4, 6: 3, 8: 3, 9: 3, 10: 3}
# What is read, and its levels; in everything else an error says what it is.
# Without the tag, Pillow takes white as zero.
TIFF = {
  **{(0, bits): _gray(NEGATIVE) for bits in (2, 4, 8, 16)},
  (0, 1): _gray([255, 255, 0]),
  **{(1, bits): _gray(THIRDS) for bits in (2, 4, 8, 12, 16)},
  (1, 1): _gray([0, 0, 255]),
  (2, 8): COLOR,
  (2, 16): COLOR,
  **{(3, bits): [[10, 20, 30], [200, 210, 220]] for bits in (1, 2, 4, 8)},
  # Without black, each of the inks takes a color away.
  (5, 8): [[255, 170, 0], [0, 255, 170]],
  (5, 16): [[255, 170, 0], [0, 255, 170]],
  # The primary red, and white.
  (6, 8): [[254, 0, 0], [255, 255, 255]],
  # Black and white.
  (8, 8): [[0, 0, 0], [255, 255, 255]],
}
TIFF |= {(None, bits): TIFF[0, bits] for bits in (1, 2, 4, 8, 16)}
SAMPLES = {
  3: np.array([[[0], [1]]]),
  6: np.array([[[76, 85, 255], [255, 128, 128]]]),
  8: np.array([[[0, 0, 0], [255, 0, 0]]]),
}
# In big-endian files, Pillow does not know these.
LITTLE_ONLY = {(None, 16), (0, 16), (1, 12)}
# Pillow reads them, but not these pixels.
MISREAD = {(2, 16), (5, 16), (8, 8)}


def _tiff(photometric, bits, **settings):
  bands = BANDS.get(photometric, 1)
  samples = _thirds(bits) if bands == 1 else _color(bits, bands)
  if bits in (1, 2, 4, 8):
    samples = SAMPLES.get(photometric, samples) % 2**bits
  if photometric == 3:
    rest = [0] * (2 ** min(bits, 8) - 2)
    pairs = ((10, 200), (20, 210), (30, 220))
    settings["palette"] = [
      level for pair in pairs for level in [257 * v for v in pair] + rest
    ]
  if photometric == 6:
    # A color for every pixel.
    settings["tags"] = {530: (3, [1, 1])}
  return image_files.tiff(
    samples, bits=bits, photometric=photometric, **settings
  )


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("photometric", PHOTOMETRIC)
def test_every_depth_and_interpretation_of_tiff(photometric, bits):
  bands = BANDS.get(photometric, 1)
  for byte_order, compressed, planes in itertools.product(
    "<>", (False, True), (False, True)[: 1 + (bands > 1)]
  ):
    content = _tiff(
      photometric,
      bits,
      byte_order=byte_order,
      compressed=compressed,
      planes=planes,
    )
    want = TIFF.get((photometric, bits))
    if byte_order == ">" and (photometric, bits) in LITTLE_ONLY:
      want = None
    if planes and (photometric, bits) in MISREAD:
      want = want if compressed and photometric != 8 else None
    if (photometric, bits, compressed) == (6, 8, False):
      # Pillow before 13 takes it for RGB.
      with Image.open(io.BytesIO(content)) as opened:
        want = want if opened.mode == "YCbCr" and not planes else None
    if want is None:
      with pytest.raises(errors.BadImageError) as caught:
        _decode(content)
      assert re.search(f"{bits}-bit|separate planes|YCbCr", str(caught.value))
    else:
      got = _decode(content)[0].astype(int)
      # Colors of CIE L*a*b* are rounded twice.
      tolerance = int(photometric == 8)
      assert np.abs(got - want).max() <= tolerance, (byte_order, compressed)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("sample_format", [2, 3])
@pytest.mark.parametrize("photometric", [0, 1])
def test_signed_and_floating_point_values_are_refused(
  photometric, sample_format, bits
):
  samples = _thirds(7)
  if sample_format == 3:
    bits = max(bits, 16)
    samples = samples / 127
  content = image_files.tiff(
    samples, bits=bits, photometric=photometric, sample_format=sample_format
  )
  kind = {2: "signed integers", 3: "floating-point"}[sample_format]
  with pytest.raises(errors.BadImageError, match=rf"{bits}-bit {kind}"):
    _decode(content)


def test_uncompressed_subsampled_colors_are_refused():
  content = image_files.tiff(SAMPLES[6], bits=8, photometric=6)
  with pytest.raises(errors.BadImageError, match="subsampled YCbCr"):
    _decode(content)


@pytest.mark.parametrize(
  ("extra", "want"),
  [
    # Of no kind, multiplied by alpha already, and alpha.
    (0, [[0, 85, 255], [255, 0, 85]]),
    (1, [[0, 85, 255], [255, 255, 255]]),
    (2, [[0, 85, 255], [255, 255, 255]]),
  ],
)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_fourth_band_of_a_tiff(bits, extra, want, compressed):
  alpha = np.array([[[2**bits - 1], [0]]])
  content = image_files.tiff(
    np.concatenate([_color(bits), alpha], 2),
    bits=bits,
    photometric=2,
    extra=[extra],
    compressed=compressed,
  )
  assert _decode(content)[0].tolist() == want


# A white level.

# 12 bits: black, a third, white, and a value beyond.
TWELVE = np.array([0, 1365, 4095, 60000]).reshape(1, 4, 1)
SCALED = [0, 85, 255, 255]


@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_a_white_level_scales_sixteen_bits(kind, byte_order, compressed):
  storage = {"byte_order": byte_order, "compressed": compressed}
  gray, color = TWELVE, TWELVE.repeat(3, 2)
  if kind == "png":
    contents = [
      image_files.png(gray, bits=16, color=0),
      image_files.png(color, bits=16, color=2),
    ]
  else:
    contents = [
      image_files.tiff(gray, bits=16, photometric=1, **storage),
      image_files.tiff(color, bits=16, photometric=2, **storage),
    ]
  for content in contents:
    assert _decode(content, 4095)[0].tolist() == _gray(SCALED)
    assert _decode(content, 65535)[0, :, 0].tolist() == (
      _decode(content)[0, :, 0].tolist()
    )


def test_a_white_level_where_white_is_zero():
  content = image_files.tiff(TWELVE, bits=16, photometric=0)
  got = _decode(content, 4095)[0].tolist()
  assert got == _gray([255, 170, 0, 0])


def test_a_white_level_leaves_alpha_as_it_is():
  color = np.concatenate([TWELVE.repeat(3, 2), [[[65535]] * 3 + [[0]]]], 2)
  content = image_files.png(color, bits=16, color=6)
  assert _decode(content, 1365)[0].tolist() == _gray([0, 255, 255, 255])
  assert _decode(content, 4095)[0].tolist() == _gray(SCALED)


@pytest.mark.parametrize(
  ("bits", "white", "want"),
  [
    (8, 16, [0, 80, 255]),
    # Files that cannot hold the level are read as without it.
    (8, 4095, [0, 5, 16]),
    (16, 16, [0, 80, 255]),
  ],
)
def test_a_white_level_of_few_bits(bits, white, want):
  gray = np.array([0, 5, 16]).reshape(1, 3, 1)
  content = image_files.png(gray, bits=bits, color=0)
  assert _decode(content, white)[0].tolist() == _gray(want)
  if bits == 8:
    color = image_files.png(gray.repeat(3, 2), bits=8, color=2)
    assert _decode(color, white)[0].tolist() == _gray(want)


def test_twelve_bits_that_a_tiff_declares_need_no_white_level():
  content = image_files.tiff(_thirds(12), bits=12, photometric=1)
  for white in (0, 4095, 65535):
    assert _decode(content, white)[0].tolist() == _gray(THIRDS)


def test_what_cannot_be_scaled_is_refused():
  gray = np.concatenate([TWELVE, TWELVE], 2)
  content = image_files.png(gray, bits=16, color=4)
  _decode(content)
  with pytest.raises(
    errors.BadImageError, match=r"scaled to data\.white_level"
  ):
    _decode(content, 4095)
  content = image_files.tiff(
    TWELVE.repeat(3, 2), bits=16, photometric=2, planes=True, compressed=True
  )
  with pytest.raises(
    errors.BadImageError, match=r"scaled to data\.white_level"
  ):
    _decode(content, 4095)
