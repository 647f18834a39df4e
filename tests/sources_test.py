import dataclasses
import gzip
import hashlib
import os
import pathlib
import struct
import subprocess
import sys

import numpy as np
import pytest

from paws_jax.data import sources
from paws_jax.data import splits

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


def arrays(**changes):
  rng = np.random.default_rng(0)
  fields = {
    "name": "tiny",
    "class_names": ("a", "b", "c"),
    "train_images": rng.integers(0, 256, (6, 4, 5, 3), np.uint8),
    "train_labels": np.array([0, 1, 2, 0, 1, 2], np.int32),
    "test_images": rng.integers(0, 256, (2, 4, 5, 3), np.uint8),
    "test_labels": np.array([2, 0], np.int32),
  }
  return sources.Arrays(**{**fields, **changes})


def load(source, directory="", tfds_name=""):
  return sources.load(source, directory=str(directory), tfds_name=tfds_name)


# Arrays.


def test_arrays_counts_classes_and_takes_grey():
  assert arrays().num_classes == 3
  grey = {
    "train_images": np.zeros((6, 4, 4, 1), np.uint8),
    "test_images": np.zeros((2, 4, 4, 1), np.uint8),
  }
  assert arrays(**grey).train_images.shape == (6, 4, 4, 1)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    (
      {"train_images": np.zeros((6, 4, 5, 3))},
      "train_images is float64 of shape",
    ),
    (
      {"test_images": np.zeros((2, 4, 5), np.uint8)},
      r"test_images is uint8 of shape \(2, 4, 5\), but must be",
    ),
    (
      {"train_images": np.zeros((6, 4, 5, 4), np.uint8)},
      r"shape \(6, 4, 5, 4\), but must be .* 1 or 3\]",
    ),
    ({"train_images": np.zeros((5, 4, 5, 3), np.uint8)}, "5 images, .* 6 lab"),
    ({"test_labels": np.zeros(3, np.int32)}, "2 images, .* 3 labels"),
    (
      {"test_images": np.zeros((2, 5, 4, 3), np.uint8)},
      r"train_images are \(4, 5, 3\), but test_images \(5, 4, 3\)",
    ),
    (
      {"test_images": np.zeros((2, 4, 5, 1), np.uint8)},
      r"train_images are \(4, 5, 3\), but test_images \(4, 5, 1\)",
    ),
    (
      {"train_images": np.zeros((0, 4, 5, 3), np.uint8)},
      r"shape \(0, 4, 5, 3\), but must be .*n > 0",
    ),
    ({"train_labels": np.zeros(6, np.int64)}, "train_labels is int64"),
    ({"train_labels": np.zeros((6, 3), np.int32)}, "of rank 2"),
    (
      {"train_labels": np.array([0, 1, 3, 0, -1, 2], np.int32)},
      r"train_labels\[2\] = 3 is outside \[0, 3\), the first of 2",
    ),
    (
      {"test_labels": np.array([0, -1], np.int32)},
      r"test_labels\[1\] = -1 is outside \[0, 3\), the first of 1",
    ),
  ],
)
def test_arrays_refuses(changes, message):
  with pytest.raises(ValueError, match=f"tiny: .*{message}"):
    arrays(**changes)


def test_fingerprint_depends_on_every_array_and_on_shapes():
  base = arrays()
  prints = [base.fingerprint()]
  for field in ("train_images", "train_labels", "test_images", "test_labels"):
    changed = getattr(base, field).copy()
    changed.flat[0] = (changed.flat[0] + 1) % 3
    prints.append(dataclasses.replace(base, **{field: changed}).fingerprint())
  swapped = {
    f: getattr(base, f).reshape(-1, 5, 4, 3)
    for f in ("train_images", "test_images")
  }
  prints.append(dataclasses.replace(base, **swapped).fingerprint())
  assert len(set(prints)) == 6
  assert all(len(p) == 64 for p in prints)


def test_fingerprint_ignores_names_and_memory_layout():
  other = arrays(
    name="other",
    class_names=("x", "y", "z"),
    train_images=np.asfortranarray(arrays().train_images),
  )
  assert other.fingerprint() == arrays().fingerprint()


# load.


def test_load_lists_the_sources_that_exist():
  with pytest.raises(
    ValueError, match=r"data\.source = 'mnist' .*digits.*idx.*tfds"
  ):
    load("mnist")


def test_digits_and_idx_import_neither_tensorflow_nor_tfds(tmp_path):
  write_idx_set(tmp_path)
  program = (
    "import sys; from paws_jax.data import sources\n"
    "assert 'sklearn' not in sys.modules\n"
    f"for s in ('digits', 'idx'): sources.load(s, directory={str(tmp_path)!r},"
    " tfds_name='')\n"
    "print({'tensorflow', 'tensorflow_datasets'} & set(sys.modules))"
  )
  done = subprocess.run(
    [sys.executable, "-c", program], capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == "set()"


# digits.


def test_digits_shapes_classes_and_levels():
  digits = load("digits")
  assert digits.train_images.shape == (1437, 8, 8, 1)
  assert digits.test_images.shape == (360, 8, 8, 1)
  assert digits.class_names == tuple("0123456789")
  # 0 ... 16 times 255 / 16, rounded.
  assert np.unique(digits.train_images).tolist() == [
    *(0, 16, 32, 48, 64, 80, 96, 112),
    *(128, 143, 159, 175, 191, 207, 223, 239, 255),
  ]


def test_digits_test_part_is_proportional_to_the_classes():
  digits = load("digits")
  test = np.bincount(digits.test_labels)
  whole = test + np.bincount(digits.train_labels)
  assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
  assert test.sum() == 360
  assert np.all(np.abs(test - 360 * whole / 1797) < 1)
  assert (test.min(), test.max()) == (35, 37)


def test_digits_parts_are_a_partition_in_the_original_order():
  from sklearn import datasets

  digits = load("digits")
  original = datasets.load_digits()
  rows = np.rint(original.images * 255 / 16).astype(np.uint8)
  used = np.zeros(len(rows), int)
  for images, labels in (
    (digits.train_images, digits.train_labels),
    (digits.test_images, digits.test_labels),
  ):
    at = -1
    for image, label in zip(images[..., 0], labels, strict=True):
      same = np.all(rows[at + 1 :] == image, axis=(1, 2))
      at += 1 + int(np.argmax(same))
      assert np.array_equal(rows[at], image)
      assert original.target[at] == label
      used[at] += 1
  assert np.all(used == 1)


def test_digits_and_their_labelled_images_never_change():
  # These change only if the data or the rule of the draw does: then every
  # result on digits is to be measured again.
  digits = load("digits")
  split = splits.choose(
    digits, labels_per_class=4, split_seed=0, labels_file=""
  )
  assert digits.fingerprint() == (
    "e4fc2553bc7ae9e75e0a3677969f613374a64f4205a686823fae11227068f2a3"
  )
  assert split.hash == (
    "89356cbce4c643ec4417d2a7169962a46ecc77daff6d087da5fc92761443e8e7"
  )


@pytest.mark.parametrize(
  ("counts", "total", "shares"),
  [
    ([10, 10, 10], 3, [1, 1, 1]),
    ([10, 10, 10], 4, [2, 1, 1]),
    ([1, 2, 4], 5, [1, 1, 3]),
  ],
)
def test_proportional_gives_the_rest_to_the_largest_remainders(
  counts, total, shares
):
  assert sources._proportional(counts, total) == shares


# idx.


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
  plain = load("idx", tmp_path)
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
  assert load("idx", tmp_path).fingerprint() == plain.fingerprint()


def replace_start(new):
  return lambda content: new + content[len(new) :]


@pytest.mark.parametrize(
  ("damage", "message"),
  [
    (lambda c: c[:-1], "is truncated: .* 136 bytes, but 135 were found"),
    (lambda c: c[:10], "is truncated: .*but 10 were found"),
    (lambda c: c + b"xy", "trailing bytes: .* 136 bytes, but 138 were found"),
    (lambda c: b"", "starts with the bytes '', but .* '00000803'"),
    (replace_start(b"<htm"), "starts with the bytes '3c68746d', but"),
    (
      replace_start(b"\0\0\x0d"),
      r"'00000d03', but .* unsigned bytes \(dtype code 08\)",
    ),
    (replace_start(b"\0\0\x08\x01"), "'00000801', but .* 3 dimensions"),
    (
      replace_start(struct.pack(">I3I", 0x803, 2**31, 2**31, 2**31)),
      "is truncated: .* but 136 were found",
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
    load("idx", tmp_path)
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
  with pytest.raises(ValueError, match=r"ubyte\.gz is not a whole gzip file"):
    load("idx", tmp_path)


def test_idx_names_the_missing_files_and_where_to_get_them(tmp_path):
  write_idx_set(tmp_path)
  (tmp_path / "t10k-labels-idx1-ubyte").unlink()
  with pytest.raises(FileNotFoundError) as caught:
    load("idx", tmp_path)
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
    load("idx")


@needs_fashion
def test_idx_reads_fashion_mnist():
  fashion = load("idx", FASHION)
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


# TFDS.


def prepare(
  directory,
  *,
  splits=("train", "test"),
  with_ids=True,
  with_labels=True,
  odd_width=False,
):
  """Builds 12 images a split, stored in another order than their ids."""
  import tensorflow_datasets as tfds

  features = {"image": tfds.features.Image(shape=(4, None, 3))}
  if not odd_width:
    features["image"] = tfds.features.Image(shape=(4, 6, 3))
  if with_labels:
    features["label"] = tfds.features.ClassLabel(names=["red", "green", "blue"])
  if with_ids:
    features["id"] = tfds.features.Text()

  class TinyColours(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features)
      )

    def _split_generators(self, dl_manager):
      return {split: self._generate_examples(split) for split in splits}

    def _generate_examples(self, split):
      for i in range(12):
        width = 7 if odd_width and i == 3 else 6
        row = {
          "image": np.full((4, width, 3), i, np.uint8),
          "label": i % 3,
          "id": f"{split}_{i:05d}",
        }
        yield i, {key: row[key] for key in features}

  builder = TinyColours(data_dir=str(directory))
  builder.download_and_prepare()
  return os.fspath(builder.data_path)


@pytest.mark.slow
def test_tfds_opens_a_prepared_directory_in_the_order_of_ids(tmp_path):
  colours = load("tfds", prepare(tmp_path))
  assert colours.name == "tiny_colours/1.0.0"
  assert colours.class_names == ("red", "green", "blue")
  assert colours.train_images.shape == (12, 4, 6, 3)
  assert colours.train_images[:, 0, 0, 0].tolist() == list(range(12))
  assert colours.train_labels.tolist() == [0, 1, 2] * 4
  assert colours.test_images[:, 3, 5, 2].tolist() == list(range(12))
  by_name = load("tfds", tmp_path, "tiny_colours")
  assert by_name.fingerprint() == colours.fingerprint()


@pytest.mark.slow
def test_tfds_without_ids_keeps_labels_with_their_images(tmp_path):
  path = prepare(tmp_path, with_ids=False, splits=("train", "validation"))
  colours = load("tfds", path, "tiny_colours")
  values = colours.train_images[:, 0, 0, 0]
  assert sorted(values.tolist()) == list(range(12))
  assert np.array_equal(colours.train_labels, values % 3)
  assert len(colours.test_labels) == 12


@pytest.mark.slow
@pytest.mark.parametrize(
  ("how", "message"),
  [
    ({"odd_width": True}, r"\(4, [67], 3\).*equal shapes"),
    ({"splits": ("train",)}, r"splits \['train'\], but needs train, and test"),
    ({"splits": ("test",)}, r"splits \['test'\], but needs train, and test"),
    ({"with_labels": False}, "needs 'label' as tfds.features.ClassLabel"),
  ],
)
def test_tfds_refuses_what_is_no_classification_set(tmp_path, how, message):
  path = prepare(tmp_path, **how)
  with pytest.raises(ValueError, match=message):
    load("tfds", path)


@pytest.mark.slow
def test_tfds_refuses_a_name_that_is_not_what_the_directory_holds(tmp_path):
  path = prepare(tmp_path)
  with pytest.raises(ValueError, match=r"'cifar10', but .* 'tiny_colours'"):
    load("tfds", path, "cifar10")


@pytest.mark.slow
def test_tfds_says_what_to_run_when_nothing_is_prepared(tmp_path):
  with pytest.raises(FileNotFoundError) as caught:
    load("tfds", tmp_path, "cifar10")
  command = (
    'python -c "import tensorflow_datasets as tfds; '
    f"tfds.builder('cifar10/3.0.2', data_dir={str(tmp_path)!r})"
    '.download_and_prepare()"'
  )
  assert command in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("cifar11", "'cifar11' is unknown to TFDS.*'cifar10'"),
    ("", "data.tfds_name = '' .* name no data set"),
    ("huggingface:mnist", "'huggingface:mnist' .* name no data set"),
  ],
)
def test_tfds_refuses_unknown_names(tmp_path, name, message):
  with pytest.raises(ValueError, match=message):
    load("tfds", tmp_path, name)


@pytest.mark.slow
def test_tfds_reads_cifar10(tmp_path):
  import tensorflow_datasets as tfds

  with tfds.testing.mock_data(num_examples=20):
    cifar10 = load("tfds", tmp_path, "cifar10")
  assert cifar10.name == "cifar10/3.0.2"
  assert cifar10.train_images.shape == (20, 32, 32, 3)
  assert cifar10.test_labels.shape == (20,)
  # The mock knows only their number; the names come with prepared data.
  assert cifar10.class_names == tuple("0123456789")
