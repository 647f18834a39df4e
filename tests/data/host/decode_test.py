"""Decoding: Pillow's pixels, in the graph too, whatever the file."""

import functools
import io
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL import ImageOps
from sklearn import datasets

from paws_jax import errors
from paws_jax.data.host import decode
from tests import image_files

MAX_PIXELS = 178956970


@functools.cache
def _photograph(index=0):
  return datasets.load_sample_images().images[index]


def _encode(array, **settings):
  """Bytes of an array, by default as a JPEG; `mode` converts it before."""
  mode = settings.pop("mode", None)
  image = array if isinstance(array, Image.Image) else Image.fromarray(array)
  image = image.convert(mode) if mode else image
  settings.setdefault("format", "JPEG")
  stream = io.BytesIO()
  image.save(stream, **settings)
  return stream.getvalue()


def _exif(orientation, byte_order="<"):
  exif = Image.Exif()
  exif.endian = byte_order
  exif[0x0112] = orientation
  return exif.tobytes()


def _image(content, **settings):
  settings = {"name": "a/b.jpg", "max_pixels": MAX_PIXELS, **settings}
  return decode.image(content, **settings)


def _plain(content, canvas_size=1024, max_pixels=MAX_PIXELS, white_level=0):
  return decode.plain_jpeg(
    content,
    canvas_size=canvas_size,
    max_pixels=max_pixels,
    white_level=white_level,
  ).numpy()


def _pillow(content):
  return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


# Canvases.


def test_an_image_lies_in_the_upper_left_corner_of_its_canvas():
  content = _encode(_photograph()[:40, :60], format="PNG")
  square, size = decode.canvas(
    content, name="x", canvas_size=64, max_pixels=MAX_PIXELS
  )
  assert (square.shape, square.dtype) == ((64, 64, 3), np.uint8)
  assert (size.tolist(), size.dtype) == ([40, 60], np.int32)
  np.testing.assert_array_equal(square[:40, :60], _photograph()[:40, :60])
  assert not square[40:].any()
  assert not square[:, 60:].any()


@pytest.mark.parametrize(
  ("shape", "fitted"),
  [
    ((427, 640), (171, 256)),
    ((640, 427), (256, 171)),
    ((256, 256), (256, 256)),
    ((257, 1), (256, 1)),
    ((1, 5000), (1, 256)),
  ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_large_images_are_reduced_to_the_canvas(shape, fitted, kind):
  content = _encode(np.full((*shape, 3), 77, np.uint8), format=kind)
  square, size = decode.canvas(
    content, name="x", canvas_size=256, max_pixels=MAX_PIXELS
  )
  assert tuple(size.tolist()) == fitted
  assert np.all(square[: fitted[0], : fitted[1]] == 77)
  assert not square[fitted[0] :].any()


def test_reducing_is_antialiased():
  # Lines of one pixel become an even grey; without antialiasing, lines again.
  lines = np.zeros((600, 600, 3), np.uint8)
  lines[:, ::2] = 255
  for kind in ("PNG", "JPEG"):
    reduced = _image(_encode(lines, format=kind, quality=95), fit=200)
    assert np.abs(reduced[5:-5, 5:-5].astype(int) - 128).max() < 40


def test_jpeg_is_reduced_to_nearly_what_the_whole_image_gives():
  content = _encode(_photograph(), quality=95)
  whole = Image.fromarray(_image(content))
  want = whole.resize((128, 85), Image.Resampling.LANCZOS)
  difference = np.abs(_image(content, fit=128) - np.asarray(want, int))
  assert difference.mean() < 1


# What kinds of image become.


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF"])
def test_lossless_files_give_their_pixels(index, kind):
  pixels = _photograph(index)[:50, :70]
  np.testing.assert_array_equal(
    _image(_encode(pixels, format=kind, lossless=True)), pixels
  )


def test_png_bytes_in_a_jpg_are_a_png():
  pixels = _photograph()[:20, :30]
  got = _image(_encode(pixels, format="PNG"), name="really.jpg")
  np.testing.assert_array_equal(got, pixels)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "RGB"])
def test_other_modes_become_what_pillow_converts_them_to(mode):
  content = _encode(
    _photograph(), mode=mode, format="JPEG" if mode == "CMYK" else "PNG"
  )
  np.testing.assert_array_equal(_image(content), _pillow(content))


def test_sixteen_bits_are_scaled_not_cut():
  ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(1, -1)
  got = _image(_encode(ramp, format="PNG"))
  np.testing.assert_array_equal(got[0, :, 0], np.arange(256))
  np.testing.assert_array_equal(got[..., 0], got[..., 2])
  half = _image(_encode(np.full((1, 1), 384, np.uint16), format="PNG"))
  assert half.tolist() == [[[1, 1, 1]]]


def test_transparency_of_sixteen_bits_shows_white():
  ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(1, -1)
  got = _image(_encode(ramp, format="PNG", transparency=257 * 10))
  want = np.arange(256)
  want[10] = 255
  np.testing.assert_array_equal(got[0, :, 0], want)


def test_what_a_tiff_holds_is_named():
  bands = np.zeros((2, 3, 12), int)
  content = image_files.tiff(bands, bits=16, photometric=1)
  with pytest.raises(
    errors.BadImageError, match=r"a TIFF of 12 bands of 16-bit unsigned .*gray"
  ):
    _image(content)
  content = image_files.tiff(
    bands[..., :1] * 1.0, bits=64, photometric=1, sample_format=3
  )
  with pytest.raises(
    errors.BadImageError, match=r"band of 64-bit floating-poi"
  ):
    _image(content)


@pytest.mark.parametrize("dtype", [np.int32, np.int16])
def test_integers_of_unknown_range_are_refused(dtype):
  # As 16 bits nearly all of them would be white, or black.
  values = np.array([[0, 30000]], dtype)
  stream = io.BytesIO()
  if dtype == np.int32:
    Image.fromarray(values * 60000).save(stream, "TIFF")
  else:
    tags = {339: 2}
    Image.fromarray(values.astype(np.uint16)).save(
      stream, "TIFF", tiffinfo=tags
    )
  assert Image.open(stream).mode == "I"
  with pytest.raises(errors.BadImageError, match=r"a/b\.jpg: .*range unknown"):
    _image(stream.getvalue())


def test_sixteen_bits_in_a_tiff_are_those_in_a_png():
  ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(1, -1)
  got = _image(_encode(ramp, format="TIFF"))
  np.testing.assert_array_equal(got[0, :, 0], np.arange(256))


def test_transparent_pixels_show_white():
  pixels = np.zeros((2, 2, 4), np.uint8)
  pixels[0, 0] = [10, 20, 30, 255]
  pixels[0, 1] = [10, 20, 30, 0]
  pixels[1, 0] = [0, 0, 0, 51]
  got = _image(_encode(pixels, format="PNG"))
  assert got[0].tolist() == [[10, 20, 30], [255, 255, 255]]
  assert got[1, 0].tolist() == [204, 204, 204]


@pytest.mark.parametrize("mode", ["LA", "P", "L", "RGB"])
def test_every_kind_of_transparency_shows_white(mode):
  if mode == "LA":
    grey = np.array([[[9, 255], [9, 0]]], np.uint8)
    content = _encode(Image.fromarray(grey, "LA"), format="PNG")
  else:
    image = Image.new(mode, (2, 1))
    if mode == "P":
      image.putpalette([9, 9, 9, 5, 5, 5])
      image.putpixel((1, 0), 1)
      transparent = b"\xff\x00"
    else:
      image.putpixel((0, 0), 9 if mode == "L" else (9, 9, 9))
      transparent = 0 if mode == "L" else (0, 0, 0)
    content = _encode(image, format="PNG", transparency=transparent)
  assert _image(content)[0, :, 0].tolist() == [9, 255]


def test_the_first_frame_of_an_animation():
  frames = [Image.new("RGB", (8, 8), c) for c in ((250, 0, 0), (0, 250, 0))]
  for kind in ("GIF", "WEBP", "PNG"):
    content = _encode(
      frames[0], format=kind, save_all=True, append_images=frames[1:]
    )
    assert _image(content)[4, 4].argmax() == 0


@pytest.mark.parametrize("orientation", range(1, 10))
@pytest.mark.parametrize("byte_order", ["<", ">"])
def test_exif_orientation_is_applied(orientation, byte_order):
  content = _encode(_photograph(), exif=_exif(orientation, byte_order))
  upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
  np.testing.assert_array_equal(_image(content), upright)
  plain = _plain(content)
  if orientation == 1:
    # A camera held level is no reason to leave the graph.
    np.testing.assert_array_equal(plain, upright)
  else:
    assert plain.shape == (0, 0, 3)


def test_a_turned_image_is_reduced_too():
  content = _encode(_photograph(), exif=_exif(6))
  assert _image(content, fit=64).shape == (64, 43, 3)


def test_orientation_from_xmp_is_seen_by_both():
  xmp = b'<x xmlns="http://ns.adobe.com/xap/1.0/" tiff:Orientation="6"/>'
  content = _encode(_photograph(), xmp=xmp)
  assert _image(content).shape == (640, 427, 3)
  assert _plain(content).size == 0


def test_metadata_that_say_nothing_are_no_reason_to_refuse():
  content = _encode(_photograph(), exif=b"Exif\x00\x00garbage")
  np.testing.assert_array_equal(_image(content), _pillow(content))


# In the graph.


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize(
  "settings",
  [
    {"quality": 92},
    {"quality": 30},
    {"quality": 95, "subsampling": 0},
    {"quality": 80, "subsampling": 1},
    {"progressive": True},
    {"mode": "L"},
    {"restart_marker_blocks": 4},
  ],
  ids=str,
)
def test_the_graph_decodes_bit_for_bit_as_pillow(index, settings):
  content = _encode(_photograph(index), **settings)
  np.testing.assert_array_equal(_plain(content), _pillow(content))
  np.testing.assert_array_equal(_plain(content), _image(content))


@pytest.mark.parametrize("white", [16, 254, 255, 4095])
def test_a_white_level_is_the_same_in_the_graph(white):
  content = _encode(_photograph())
  plain = _plain(content, white_level=white)
  want = _image(content, white_level=white)
  if white < 255:
    # Left to Pillow.
    assert plain.shape == (0, 0, 3)
    assert np.all(want >= _image(content))
  else:
    np.testing.assert_array_equal(plain, want)
    np.testing.assert_array_equal(plain, _image(content))


def test_odd_sizes_decode_alike():
  for height, width in ((1, 1), (7, 3), (16, 17), (33, 8)):
    content = _encode(_photograph()[:height, :width])
    np.testing.assert_array_equal(_plain(content), _image(content))


def test_the_graph_leaves_to_pillow_what_is_not_ordinary():
  photograph = _encode(_photograph())
  assert _plain(photograph).shape == (427, 640, 3)
  assert _plain(photograph, canvas_size=639).shape == (0, 0, 3)
  assert _plain(photograph, max_pixels=427 * 640 - 1).shape == (0, 0, 3)
  assert _plain(_encode(_photograph(), mode="CMYK")).shape == (0, 0, 3)
  # Its orientation might stand beyond what is looked at.
  comment = _encode(_photograph(), comment=b"c" * 5000)
  assert _plain(comment).shape == (0, 0, 3)


@pytest.mark.parametrize("kind", ["empty", "png", "html"])
def test_the_graph_leaves_to_pillow_what_is_no_jpeg(kind, capfd):
  content = {
    "empty": b"",
    "png": _encode(_photograph(), format="PNG"),
    "html": b"<html>404</html>",
  }[kind]
  assert _plain(content).shape == (0, 0, 3)
  # A folder of PNG files shall not fill the log.
  assert "JPEG" not in capfd.readouterr().err


def test_the_graph_raises_for_what_is_no_whole_jpeg():
  import tensorflow as tf

  for end in (100, 9000):
    with pytest.raises(tf.errors.InvalidArgumentError):
      _plain(_encode(_photograph())[:end])


# Bad images.


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "the file is empty"),
    (b"\n<!DOCTYPE html><html>", "it is text"),
    (b"\0\0\0\x1cftypavif\0\0\0\0mif1miafavif", "an AVIF image, whatever"),
    (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "an AVIF image, whatever"),
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC image, whatever"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "a HEIC image, whatever"),
    (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "a video or"),
    (b"8BPS\0\x01", "a Photoshop document, whatever"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
    (bytes(128) + b"DICM", "a DICOM file"),
    (b"II*\0\x08\0\0\0\0\0\0\0\0\0", "an image of a known format"),
    (b"version https://git-lfs.github.com/spec/v1\noid x", "run git lfs pull"),
    (b"\0\x05\x16\x07" + bytes(99), "what macOS keeps beside an image"),
    (bytes(1000), "all of its 1,000 bytes are zero"),
    (b"\xef\xbb\xbf<svg/>", "it is text"),
    (b"P6\n1 1\n255\n", "a netpbm image, whatever"),
    (b"\x1f\x8b\x08\0", "a gzip archive, whatever"),
    (
      b"GIF89a\0\0\5\0" + bytes(9),
      r"begins as a GIF, but has no pixel \(0 x 5",
    ),
    (b"\x89PNG\r\n\x1a\n", "a PNG, but its header is damaged"),
    (b"GARBAGE!" * 9, r"an image of a known format \(72 bytes, the first b'GA"),
    (b"%!PS-Adobe-3.0 EPSF-3.0", "not an image of a known format"),
  ],
)
def test_what_is_no_image_is_refused_by_name(content, message):
  with pytest.raises(errors.BadImageError, match=rf"^a/b\.jpg: .*{message}"):
    _image(content)


@pytest.mark.parametrize(
  ("kind", "at", "new", "problem"),
  [
    ("PNG", 16, bytes(4), r"has no pixel \(0 x 30\)"),
    ("PNG", 20, bytes(4), r"has no pixel \(20 x 0\)"),
    ("BMP", 18, bytes(4), r"has no pixel \(0 x 30\)"),
    ("BMP", 22, bytes(4), r"has no pixel \(20 x 0\)"),
    # Counted from the frame header: bits of a sample, height and width.
    (
      "JPEG",
      4,
      b"\x0c",
      "has 12 bits a sample: convert it to gray or RGB",
    ),
    ("JPEG", 5, bytes(2), r"has no pixel \(20 x 0\)"),
    ("JPEG", 7, bytes(2), r"has no pixel \(0 x 30\)"),
  ],
)
def test_headers_that_are_not_read_are_named(kind, at, new, problem):
  content = _encode(_photograph()[:30, :20], format=kind)
  at += content.index(b"\xff\xc0") if kind == "JPEG" else 0
  content = content[:at] + new + content[at + len(new) :]
  words = f"it begins as a {kind}, but {problem}"
  with pytest.raises(errors.BadImageError, match=words):
    _image(content)


def test_an_error_without_words_has_its_name():
  # A palette is missing.
  content = image_files.png(np.zeros((2, 2, 1), int), bits=8, color=3)
  with pytest.raises(errors.BadImageError, match=r"incomplete \(\w+\)"):
    _image(content)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
def test_truncated_files_are_refused_wherever_they_end(kind):
  content = _encode(_photograph()[:64, :64], format=kind)
  for end in (10, 40, len(content) // 2, int(0.9 * len(content))):
    with pytest.raises(errors.BadImageError, match=r"a/b\.jpg: .*Repair it"):
      _image(content[:end])


@pytest.mark.parametrize("place", ["open", "Image.load", "Image.tobytes"])
def test_an_image_without_memory_for_it_is_a_bad_one(monkeypatch, place):
  def fail(*unused, **options):
    raise MemoryError

  content = _encode(_photograph()[:8, :9], format="PNG")
  # Pillow refuses lines of more than 2^31 bits in this way.
  monkeypatch.setattr(f"PIL.Image.{place}", fail)
  with pytest.raises(errors.BadImageError, match=r"a/b\.jpg: the memory does"):
    _image(content)


@pytest.mark.slow
def test_a_line_too_long_for_pillow_is_a_bad_image():
  width = 100_000_000
  small = image_files.png(np.zeros((1, 1, 1), int), bits=8, color=0)
  header = width.to_bytes(4, "big") + (1).to_bytes(4, "big")
  header += bytes([8, 0, 0, 0, 0])
  content = small[:8] + image_files.chunk(b"IHDR", header)
  content += image_files.chunk(b"IDAT", zlib.compress(bytes(width + 1), 9))
  content += image_files.chunk(b"IEND", b"")
  assert len(content) < 10**5
  for fit in (0, 64):
    with pytest.raises(
      errors.BadImageError, match="1 x 100000000 pixels, or a"
    ):
      _image(content, fit=fit)


def test_damaged_files_raise_nothing_else():
  rng = np.random.default_rng(0)
  refused = 0
  for kind in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
    content = _encode(_photograph()[:32, :32], format=kind)
    for _ in range(60):
      damaged = bytearray(content)
      for place in rng.integers(0, min(300, len(content)), 4):
        damaged[place] = rng.integers(0, 256)
      try:
        # A changed header may announce anything: few pixels are allowed.
        image = _image(bytes(damaged), max_pixels=10**6)
        assert image.dtype == np.uint8
        assert image.shape[2] == 3
      except errors.BadImageError:
        refused += 1
  assert refused > 20


def _bomb(side):
  """A PNG whose header announces many pixels, and which holds none."""
  header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
  chunks = image_files.chunk(b"IHDR", header) + image_files.chunk(b"IDAT", b"")
  return b"\x89PNG\r\n\x1a\n" + chunks


def test_decompression_bombs_are_refused_before_decoding():
  with pytest.raises(
    errors.BadImageError,
    match=r"announces 9000 x 9000 pixels, more than .* = 80999999",
  ):
    _image(_bomb(9000), max_pixels=80999999)
  # Not for what it announces, but for what is missing.
  with pytest.raises(errors.BadImageError, match="damaged or incomplete"):
    _image(_bomb(9000), max_pixels=81000000)
  with pytest.raises(errors.BadImageError, match=r"raise that to read it"):
    _image(_bomb(30000))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("settings", [{}, {"compression": "tiff_lzw"}])
def test_pillows_own_limit_of_pixels_is_none(monkeypatch, kind, settings):
  pixels = _photograph()[:40, :50]
  content = _encode(pixels, format=kind, **settings)
  want = _image(content)
  # More than twice the limit is an error of Pillow's.
  monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 999)
  np.testing.assert_array_equal(_image(content, max_pixels=2000), want)
  with pytest.raises(errors.BadImageError, match=r"raise that to read it"):
    _image(content, max_pixels=1999)
  assert Image.MAX_IMAGE_PIXELS == 999


def test_floating_point_pixels_are_refused():
  content = _encode(np.zeros((4, 4), np.float32), format="TIFF")
  with pytest.raises(errors.BadImageError, match="floating-point"):
    _image(content)


def test_the_remedy_is_named():
  with pytest.raises(errors.BadImageError, match=r'on_bad_image to "skip"'):
    _image(b"")
