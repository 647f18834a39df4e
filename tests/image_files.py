"""PNG and TIFF files written bit by bit, whatever Pillow can write."""

import struct
import zlib

import numpy as np


def packed(samples, bits, byte_order=">"):
  """Rows of samples as bytes; each row starts at a byte.

  Args:
    samples: int [h, n], or float of 16, 32 or 64 bits.
    bits: of a sample.
    byte_order: ">" or "<", of samples of 16 bits and more.
  """
  if bits >= 16 and bits % 8 == 0:
    kind = samples.dtype.kind
    return samples.astype(f"{byte_order}{kind}{bits // 8}").tobytes()
  spread = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
  rows = spread.reshape(len(samples), -1).astype(np.uint8)
  return np.packbits(rows, axis=1).tobytes()


def png(samples, *, bits, color, palette=None, transparency=None):
  """A PNG.

  Args:
    samples: int [h, w, channels].
    bits: of a sample.
    color: 0 gray, 2 RGB, 3 palette, 4 gray and alpha, 6 RGB and alpha.
    palette: bytes of PLTE.
    transparency: bytes of tRNS.
  """
  height, width = samples.shape[:2]
  rows = samples.reshape(height, -1)
  lines = b"".join(b"\0" + packed(row[None], bits) for row in rows)
  header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
  parts = [(b"IHDR", header)]
  parts += [(b"PLTE", palette)] if palette else []
  parts += [(b"tRNS", transparency)] if transparency else []
  parts += [(b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
  return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def chunk(name, content):
  """A chunk of a PNG."""
  checksum = struct.pack(">I", zlib.crc32(name + content))
  return struct.pack(">I", len(content)) + name + content + checksum


def tiff(
  samples,
  *,
  bits,
  photometric,
  byte_order="<",
  compressed=False,
  planes=False,
  sample_format=1,
  extra=(),
  palette=None,
  tags=(),
):
  """A TIFF of one strip, or of one a plane.

  Args:
    samples: [h, w, channels].
    bits: of a sample.
    photometric: PhotometricInterpretation; None: the tag is left out.
    byte_order: "<" or ">".
    compressed: whether strips are deflated, so that libtiff reads them.
    planes: whether each channel has a strip of its own.
    sample_format: 1 unsigned, 2 signed, 3 floating point.
    extra: ExtraSamples.
    palette: ColorMap.
    tags: others, {tag: [type, values]}.
  """
  height, width, channels = samples.shape
  layers = (
    [samples[..., c] for c in range(channels)]
    if planes
    else [samples.reshape(height, -1)]
  )
  strips = [packed(layer, bits, byte_order) for layer in layers]
  strips = [zlib.compress(strip) if compressed else strip for strip in strips]
  starts = np.cumsum([8, *map(len, strips)]).tolist()
  short, long = 3, 4
  entries = {
    256: (long, [width]),
    257: (long, [height]),
    258: (short, [bits] * channels),
    259: (short, [8 if compressed else 1]),
    273: (long, starts[:-1]),
    277: (short, [channels]),
    278: (long, [height]),
    279: (long, [len(strip) for strip in strips]),
    284: (short, [2 if planes else 1]),
    339: (short, [sample_format] * channels),
    **dict(tags),
  }
  if photometric is not None:
    entries[262] = (short, [photometric])
  if extra:
    entries[338] = (short, list(extra))
  if palette:
    entries[320] = (short, list(palette))
  body = b"".join(strips)
  body += b"\0" * (len(body) % 2)
  directory = struct.pack(f"{byte_order}H", len(entries))
  after = 8 + len(body) + 2 + 12 * len(entries) + 4
  values = b""
  for tag, (kind, numbers) in sorted(entries.items()):
    code = "H" if kind == short else "I"
    content = struct.pack(f"{byte_order}{len(numbers)}{code}", *numbers)
    directory += struct.pack(f"{byte_order}HHI", tag, kind, len(numbers))
    if len(content) <= 4:
      directory += content.ljust(4, b"\0")
    else:
      directory += struct.pack(f"{byte_order}I", after + len(values))
      values += content
  mark = b"II*\0" if byte_order == "<" else b"MM\0*"
  start = struct.pack(f"{byte_order}I", 8 + len(body))
  return mark + start + body + directory + bytes(4) + values
