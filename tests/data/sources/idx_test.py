import gzip
import hashlib
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from paws_jax.data.sources import arrays

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
# sha256 of the decompressed files, as published.
FASHION_SHA256 = {
  "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f327614"
  "5d20f83aa44d888",
  "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d"
  "8633921760443d9",
  "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c"
  "9a5cd8815ce37b",
  "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729d"
  "f917d7dec38c34",
}
needs_fashion = pytest.mark.skipif(
  not FASHION.is_dir(),
  reason=f"{FASHION} is absent: apt-get install dataset-fashion-mnist",
)


def load(directory=""):
  return arrays.load("idx", directory=str(directory), tfds_name="")


def idx_bytes(values):
  head = struct.pack(
    f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape
  )
  return head + values.astype(np.uint8).tobytes()


def write_idx_set(directory):
  """Writes 6 + 4 images of 5 x 4 in three classes; returns the contents."""
  rng = np.random.default_rng(1)
  contents = {
    "train-images-idx3-ubyte": rng.integers(0, 256, (6, 5, 4)),
    "train-labels-idx1-ubyte": np.array([2, 0, 1, 2, 0, 1]),
    "t10k-images-idx3-ubyte": rng.integers(0, 256, (4, 5, 4)),
    "t10k-labels-idx1-ubyte": np.array([1, 1, 0, 2]),
  }
  for name, values in contents.items():
    (directory / name).write_bytes(idx_bytes(values))
  return contents


def test_idx_reads_plain_and_compressed_files(tmp_path):
  contents = write_idx_set(tmp_path)
  plain = load(tmp_path)
  assert plain.class_names == ("0", "1", "2")
  assert plain.name == "idx"
  assert plain.train_images.shape == (6, 5, 4, 1)
  for field, name in (
    ("train_images", "train-images-idx3-ubyte"),
    ("train_labels", "train-labels-idx1-ubyte"),
    ("test_images", "t10k-images-idx3-ubyte"),
    ("test_labels", "t10k-labels-idx1-ubyte"),
  ):
    got = getattr(plain, field)
    assert np.array_equal(got.reshape(contents[name].shape), contents[name])
    packed = gzip.compress((tmp_path / name).read_bytes())
    (tmp_path / f"{name}.gz").write_bytes(packed)
    (tmp_path / name).unlink()
  assert load(tmp_path).fingerprint() == plain.fingerprint()


def replace_start(new):
  return lambda content: new + content[len(new) :]


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda c: c[:-1], "is truncated: .* 136 bytes, but it has 135"),
    (lambda c: c[:10], "is truncated: .*but it has 10"),
    (lambda c: c + b"xy", "extra bytes: .* 136 bytes, but it has 138"),
    (lambda c: b"", "starts with the bytes '', but .* '00000803'"),
    (replace_start(b"<htm"), "starts with the bytes '3c68746d', but"),
    (
      replace_start(b"\0\0\x0d"),
      r"'00000d03', but .* unsigned bytes \(dtype code 08\)",
    ),
    (replace_start(b"\0\0\x08\x01"), "'00000801', but .* 3 dimensions"),
    (
      replace_start(struct.pack(">I3I", 0x803, 2**31, 2**31, 2**31)),
      "is truncated: .* but it has 136",
    ),
    (
      lambda c: idx_bytes(np.zeros((5, 5, 4))),
      "holds 5 images, but .*train-labels-idx1-ubyte 6 labels",
    ),
    (lambda c: idx_bytes(np.zeros((6, 4, 5))), r"train_images are \(4, 5, 1\)"),
  ],
)
def test_idx_refuses_damaged_files(tmp_path, damage, message):
  write_idx_set(tmp_path)
  path = tmp_path / "train-images-idx3-ubyte"
  path.write_bytes(damage(path.read_bytes()))
  with pytest.raises(ValueError, match=message) as caught:
    load(tmp_path)
  assert path.name in str(caught.value) or "train_images" in str(caught.value)


@pytest.mark.parametrize("kind", ["truncated", "damaged", "checksum", "plain"])
def test_idx_refuses_damaged_gzip(tmp_path, kind):
  write_idx_set(tmp_path)
  path = tmp_path / "t10k-images-idx3-ubyte"
  content = path.read_bytes()
  packed = bytearray(gzip.compress(content))
  if kind == "truncated":
    packed = packed[:-20]
  elif kind == "damaged":
    packed[12] ^= 0xFF
  elif kind == "checksum":
    packed[-5] ^= 0x01
  else:
    packed = content
  path.unlink()
  path.with_name(f"{path.name}.gz").write_bytes(packed)
  with pytest.raises(
    ValueError, match=r"ubyte\.gz is not a complete gzip file"
  ):
    load(tmp_path)


def test_idx_names_the_missing_files_and_where_to_get_them(tmp_path):
  write_idx_set(tmp_path)
  (tmp_path / "t10k-labels-idx1-ubyte").unlink()
  with pytest.raises(FileNotFoundError) as caught:
    load(tmp_path)
  message = str(caught.value)
  assert f"data.dir = {str(tmp_path)!r} holds 3 of the 4 files" in message
  assert ": t10k-labels-idx1-ubyte. " in message
  assert "dataset-fashion-mnist" in message


def test_idx_without_a_directory_does_not_read_the_current_one(
  tmp_path, monkeypatch
):
  write_idx_set(tmp_path)
  monkeypatch.chdir(tmp_path)
  with pytest.raises(FileNotFoundError, match=r"data\.dir = '' holds 0 of"):
    load()


@needs_fashion
def test_idx_reads_fashion_mnist():
  fashion = load(FASHION)
  parts = {
    "train-images-idx3-ubyte": fashion.train_images[..., 0],
    "train-labels-idx1-ubyte": fashion.train_labels,
    "t10k-images-idx3-ubyte": fashion.test_images[..., 0],
    "t10k-labels-idx1-ubyte": fashion.test_labels,
  }
  for name, values in parts.items():
    digest = hashlib.sha256(idx_bytes(values)).hexdigest()
    assert digest == FASHION_SHA256[name]
  assert fashion.name == "fashion_mnist"
  assert fashion.class_names[9] == "Ankle boot"
  assert np.bincount(fashion.train_labels).tolist() == [6000] * 10


def test_digits_and_idx_import_neither_tensorflow_nor_tfds(tmp_path):
  write_idx_set(tmp_path)
  program = (
    "import sys; from paws_jax.data.sources import arrays as sources\n"
    "assert 'sklearn' not in sys.modules\n"
    f"for s in ('digits', 'idx'): sources.load(s, directory={str(tmp_path)!r},"
    " tfds_name='')\n"
    "print({'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "set()"
