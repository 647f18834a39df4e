"""Images with equal contents are found without reading all of them."""

import numpy as np
import pytest

from paws_jax.data.labels import copies
from paws_jax.data.sources import catalog


class _Counting(catalog.Files):
  """Files that note which of them are read."""

  def read(self, index):
    _READ.append(self.paths[index])
    return super().read(index)


_READ: list[str] = []


@pytest.fixture
def images(tmp_path):
  _READ.clear()
  contents = {"a": b"1234", "b": b"12345", "c": b"1234", "d": b"4321", "e": b""}
  for name, content in contents.items():
    (tmp_path / name).write_bytes(content)
  return _Counting(str(tmp_path), (*contents, "missing"))


def test_files_of_one_size_are_compared(images):
  rows = np.arange(6)
  assert copies.of_files(images, rows).tolist() == [0, 1, 0, 3, 4, 5]
  assert sorted(_READ) == ["a", "c", "d"]
  # Places are those among the rows.
  assert copies.of_files(images, np.array([3, 2, 0])).tolist() == [0, 1, 1]


def test_files_that_cannot_be_read_are_no_copies(images, monkeypatch):
  def read(self, index):
    raise OSError("gone")

  monkeypatch.setattr(_Counting, "read", read)
  assert copies.of_files(images, np.arange(4)).tolist() == [0, 1, 2, 3]
  assert copies.of_files(images, np.zeros(0, int)).tolist() == []


def test_arrays_are_compared_by_their_pixels():
  pixels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 1), np.uint8)
  pixels[3] = pixels[1]
  pixels[4] = pixels[1]
  pixels[4, 0, 0] ^= 1
  assert copies.of_arrays(pixels).tolist() == [0, 1, 2, 1, 4]


def test_of_some_images_the_first_that_is_left_counts():
  found = np.array([0, 1, 0, 1, 4])
  assert copies.among(found, np.array([1, 2, 3])).tolist() == [0, 1, 0]
  mask = np.array([False, True, True, True, True])
  assert copies.among(found, mask).tolist() == [0, 1, 0, 3]
