"""Support banks: their file, their thumbnails."""

import dataclasses

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.classifier import support_bank as support_bank_lib


def make(count=3):
  return support_bank_lib.SupportBank(
    embeddings=np.arange(2 * count, dtype=np.float32).reshape(count, 2),
    labels=np.arange(count, dtype=np.int32),
    # A file name need not be UTF-8.
    names=("a", 'b"\n', "c\udcff")[:count],
    thumbnails=np.arange(4 * count, dtype=np.uint8).reshape(count, 2, 2, 1),
  )


def test_bytes_and_back():
  support_bank = make()
  got = support_bank_lib.from_bytes(support_bank.to_bytes())
  for field in dataclasses.fields(support_bank):
    want = getattr(support_bank, field.name)
    np.testing.assert_array_equal(getattr(got, field.name), want)
  assert got.to_bytes() == support_bank.to_bytes()
  assert len(support_bank.extended(support_bank)) == 6


@pytest.mark.parametrize(
  "content", [b"", b"nonsense nonsense", b"\x02" + b"\0" * 7 + b"{}"]
)
def test_other_bytes_are_refused(content):
  with pytest.raises(ValueError, match="it is no support bank"):
    support_bank_lib.from_bytes(content)


def test_lengths_that_differ_are_refused():
  with pytest.raises(ValueError, match="bank of 3 labels but 2 names"):
    dataclasses.replace(make(), names=("a", "b"))


@pytest.mark.parametrize(
  ("shape", "count", "want"),
  [
    ((8, 8, 1), 10**6, (8, 8, 1)),
    ((224, 224, 3), 12_811, (64, 64, 3)),
    ((224, 224, 3), 128_116, (24, 24, 3)),
    ((224, 224, 3), 10**9, (16, 16, 3)),
    ((100, 200, 3), 10, (32, 64, 3)),
  ],
)
def test_thumbnails_of_many_images_are_smaller(shape, count, want):
  assert support_bank_lib.thumbnail_shape(shape, count) == want


def test_thumbnails_show_the_image():
  image = np.zeros((1, 32, 32, 3), np.uint8)
  image[:, :16] = 200
  small = support_bank_lib.thumbnails(image, (8, 8, 3))
  assert small.shape == (1, 8, 8, 3)
  assert small[0, :3].min() == 200
  assert small[0, 5:].max() == 0


class Labelled:
  images = np.zeros((3, 4, 4, 1), np.uint8)

  def __init__(self, readable, labels=(0, 1, 1)):
    self.readable = np.array(readable)
    self.labels = np.array(labels, np.int32)

  def __len__(self):
    return 3

  def name(self, i):
    return f"image {i}"


def of_labelled(labelled):
  return support_bank_lib.embed_labelled(
    labelled,
    lambda pixels, size: np.ones((len(pixels), 5), np.float32),
    batch_size=2,
    name="flowers",
  )


def test_unreadable_labelled_images_are_left_out():
  support_bank = of_labelled(Labelled([True, False, True]))
  assert support_bank.names == ("image 0", "image 2")
  assert support_bank.embeddings.shape == (2, 5)
  with pytest.raises(errors.BadImageError, match="flowers: 1 of 3 labelled"):
    of_labelled(Labelled([False, True, True]))
