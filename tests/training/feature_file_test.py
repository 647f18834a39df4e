"""Features on disk: resumed, moved, damaged."""

import errno
import os

import numpy as np
import pytest

from paws_jax.runs import full_disk
from paws_jax.training import feature_file

DIGESTS = [bytes([number]) * 16 for number in range(1, 6)]


def _open(directory, digests=DIGESTS, num_views=2, name="large"):
  return feature_file.FeatureFile(
    directory, name, digests, num_views=num_views, num_features=3
  )


def _values(*rows):
  return np.stack([np.full((2, 3), row, np.float16) for row in rows])


def test_features_are_there_after_they_are_written(tmp_path):
  file = _open(tmp_path)
  np.testing.assert_array_equal(file.missing, range(5))
  file.write(np.array([3, 0]), _values(3, 0))
  again = _open(tmp_path)
  np.testing.assert_array_equal(again.missing, [1, 2, 4])
  np.testing.assert_array_equal(again.features[[3, 0]], _values(3, 0))
  again.write(np.array([1, 2, 4]), _values(1, 2, 4))
  assert not len(_open(tmp_path).missing)
  # Other views lie beside them.
  assert len(_open(tmp_path, name="support").missing) == 5


def test_images_that_have_moved_keep_their_features(tmp_path):
  _open(tmp_path).write(np.arange(5), _values(*range(5)))
  new = bytes([9]) * 16
  file = _open(tmp_path, [DIGESTS[4], new, DIGESTS[1]])
  np.testing.assert_array_equal(file.missing, [1])
  np.testing.assert_array_equal(file.features[[0, 2]], _values(4, 1))


def test_an_image_that_cannot_be_read_is_none_of_the_others(tmp_path):
  file = _open(tmp_path, [b"", DIGESTS[0]])
  file.write(np.arange(2), _values(0, 1))
  np.testing.assert_array_equal(_open(tmp_path, [b"", b""]).missing, [0, 1])


def test_damaged_features_are_missing(tmp_path):
  _open(tmp_path).write(np.arange(5), _values(*range(5)))
  path = tmp_path / "large.npy"
  content = bytearray(path.read_bytes())
  # The last bytes are those of the last image.
  content[-1] ^= 1
  path.write_bytes(content)
  np.testing.assert_array_equal(_open(tmp_path).missing, [4])


@pytest.mark.parametrize("kind", ["", ".digests", ".sums"])
@pytest.mark.parametrize("damage", ["absent", "cut", "other"])
def test_damaged_files_are_made_anew(tmp_path, kind, damage):
  _open(tmp_path).write(np.arange(5), _values(*range(5)))
  path = tmp_path / f"large{kind}.npy"
  content = path.read_bytes()
  if damage == "absent":
    path.unlink()
  elif damage == "cut":
    path.write_bytes(content[: len(content) // 2])
  else:
    np.save(path, np.zeros(3))
  np.testing.assert_array_equal(_open(tmp_path).missing, range(5))


def test_other_views_are_computed_anew(tmp_path):
  _open(tmp_path).write(np.arange(5), _values(*range(5)))
  np.testing.assert_array_equal(_open(tmp_path, num_views=4).missing, range(5))


@pytest.mark.skipif(
  not hasattr(os, "posix_fallocate"), reason="files are sparse"
)
@pytest.mark.parametrize(("last", "name"), [(0, "large"), (1, "large.sums")])
def test_the_space_is_taken_before_anything_is_computed(
  tmp_path, monkeypatch, last, name
):
  # A later write to a full disk would end the process.
  sizes = {"num_views": 2, "num_features": 10**5}
  feature_file.FeatureFile(tmp_path, "large", DIGESTS, **sizes)
  taken = (tmp_path / "large.npy").stat()
  assert taken.st_blocks * 512 >= taken.st_size > 10**6

  took = []

  def full(*_):
    if len(took) == last:
      raise OSError(errno.ENOSPC, "No space left on device")
    took.append(1)

  monkeypatch.setattr(os, "posix_fallocate", full)
  with pytest.raises(OSError, match="No space left") as error:
    _open(tmp_path / "other")
  assert full_disk.sentence(error.value, "/run").startswith(
    str(tmp_path / "other" / f"{name}.part")
  )
  assert not list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_takes_no_space_in_advance(
  tmp_path, monkeypatch, number
):
  def refuse(*_):
    raise OSError(number, os.strerror(number))

  monkeypatch.setattr(os, "posix_fallocate", refuse, raising=False)
  _open(tmp_path).write(np.arange(5), _values(*range(5)))
  assert not len(_open(tmp_path).missing)


def test_the_size_on_disk(tmp_path):
  _open(tmp_path)
  size = sum(path.stat().st_size for path in tmp_path.iterdir())
  headers = 3 * 128
  assert size == feature_file.num_bytes(5, 2, 3) + headers
