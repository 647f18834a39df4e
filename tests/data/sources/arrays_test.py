import dataclasses

import numpy as np
import pytest

from paws_jax.data.labels import split as split_lib
from paws_jax.data.sources import arrays as arrays_lib


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
  return arrays_lib.Arrays(**{**fields, **changes})


def load(source, directory="", tfds_name=""):
  return arrays_lib.load(source, directory=str(directory), tfds_name=tfds_name)


# Arrays.


def test_arrays_counts_classes_and_takes_grey():
  assert arrays().num_classes == 3
  grey = {
    "train_images": np.zeros((6, 4, 4, 1), np.uint8),
    "test_images": np.zeros((2, 4, 4, 1), np.uint8),
  }
  assert arrays(**grey).train_images.shape == (6, 4, 4, 1)


def test_there_may_be_no_test_images_but_not_no_training_images():
  nothing = np.zeros((0, 4, 5, 3), np.uint8), np.zeros(0, np.int32)
  made = arrays(test_images=nothing[0], test_labels=nothing[1])
  assert not len(made.test_labels)
  with pytest.raises(ValueError, match="train_images is uint8 of shape"):
    arrays(train_images=nothing[0], train_labels=nothing[1])


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
      r"train_images are \(4, 5, 3\) .*, but test_images \(5, 4, 3\)",
    ),
    (
      {"test_images": np.zeros((2, 4, 5, 1), np.uint8)},
      r"train_images are \(4, 5, 3\) .*, but test_images \(4, 5, 1\)",
    ),
    (
      {"train_images": np.zeros((0, 4, 5, 3), np.uint8)},
      r"shape \(0, 4, 5, 3\), but must be .*n > 0",
    ),
    ({"train_labels": np.zeros(6, np.int64)}, "train_labels is int64"),
    ({"train_labels": np.zeros((6, 3), np.int32)}, "of rank 2"),
    (
      {"train_labels": np.array([0, 1, 3, 0, -2, 2], np.int32)},
      r"train_labels\[2\] = 3 is outside \[-1, 3\), the first of 2",
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
  split = split_lib.choose(
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
  assert arrays_lib._proportional(counts, total) == shares
