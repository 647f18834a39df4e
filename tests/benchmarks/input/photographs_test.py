"""JPEGs that the benchmarks make, and where they make them."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.input import photographs


def test_photographs_are_found_at_any_depth(tmp_path):
  (tmp_path / "b").mkdir()
  for name in ("b/1.JPG", "a.jpeg", "c.png"):
    (tmp_path / name).write_bytes(b"")
  assert photographs.find(tmp_path) == ["a.jpeg", "b/1.JPG"]
  assert photographs.find_or_make(tmp_path, 1) == ["a.jpeg", "b/1.JPG"]


def test_photographs_are_made_where_there_is_nothing_at_all(tmp_path, capsys):
  for root in (tmp_path, tmp_path / "new"):
    made = photographs.find_or_make(root, 2)
    assert made == ["00000.jpg", "00001.jpg"]
    assert f"made: 2 photographs in {root}\n" == capsys.readouterr().out


@pytest.mark.parametrize("other", ["a.png", ".hidden", "below/"])
def test_photographs_are_not_made_among_other_files(tmp_path, other):
  path = tmp_path / other
  if other.endswith("/"):
    path.mkdir()
  else:
    path.write_bytes(b"")
  with pytest.raises(ValueError, match=rf"has no JPEGs .* \({path.name}\)"):
    photographs.find_or_make(tmp_path, 2)
  assert list(tmp_path.iterdir()) == [path]
  # Nor in the place of a file.
  file = tmp_path / "a.txt"
  file.write_bytes(b"")
  with pytest.raises(NotADirectoryError):
    photographs.find_or_make(file, 2)


def test_photographs_are_the_same_each_time(tmp_path):
  photographs.make(tmp_path / "a", 3)
  photographs.make(tmp_path / "b", 3)
  contents = [
    [path.read_bytes() for path in sorted((tmp_path / name).iterdir())]
    for name in "ab"
  ]
  assert contents[0] == contents[1]
  assert len(set(contents[0])) == 3
  # Like those of ImageNet.
  assert 60e3 < np.mean([len(content) for content in contents[0]]) < 140e3
  assert Image.open(tmp_path / "a" / "00002.jpg").size == (500, 375)
