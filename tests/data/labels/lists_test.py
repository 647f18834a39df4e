import hashlib

import numpy as np
import pytest

from paws_jax.data.labels import lists
from tests import odd_files


def read(tmp_path, text, names=None):
  path = tmp_path / "labelled.txt"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  num_images = 30 if names is None else len(names)
  return lists.read(path, num_images=num_images, names=names)


def test_read_reads_sorted_ids_past_comments_and_blanks(tmp_path):
  ids = read(tmp_path, "# my labels\n\n20\n3   # a cat\n  7\r\n1")
  assert ids.dtype == np.int32
  assert ids.tolist() == [1, 3, 7, 20]


def test_read_skips_a_byte_order_mark(tmp_path):
  assert read(tmp_path, b"\xef\xbb\xbf0\n1\n2\n").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("0\n\n1.5\n", "line 3: '1.5' is not an integer"),
    ("0\n1_0\n", "line 2: '1_0' is not an integer"),
    ("0 1\n", "line 1: '0 1' is not an integer"),
    (b"0\n\xff\n", "line 2: .* is not an integer"),
    ("0\n30\n", "line 2: index 30 is out of range for 30 .* 0 to 29"),
    ("-1\n", "line 1: index -1 is out of range for 30"),
    ("# x\n4\n5\n4\n", "line 4: index 4 is already in line 2"),
  ],
)
def test_read_names_the_bad_line(tmp_path, text, message):
  with pytest.raises(ValueError, match=f"labelled.txt', {message}"):
    read(tmp_path, text)


NAMES = ("a/n1_1.JPEG", "a/n1_2.JPEG", "b/n2_1.JPEG", "b/x.png", "c/x.png")


def test_names_are_file_names_or_paths_in_any_order(tmp_path):
  ids = read(
    tmp_path, "n2_1.JPEG\n# one\nc/x.png  # two\n\nn1_1.JPEG\r\n", NAMES
  )
  assert ids.dtype == np.int32
  assert ids.tolist() == [0, 2, 4]


def test_names_may_hold_a_hash_and_need_not_be_utf8(tmp_path):
  names = ("a#1.jpg", "caf\udce9.jpg", "1 2.jpg")
  ids = read(tmp_path, b"a#1.jpg\ncaf\xe9.jpg\n1 2.jpg\n", names)
  assert ids.tolist() == [0, 1, 2]


def test_a_name_goes_before_a_comment(tmp_path):
  names = ("cat/photo", "cat/photo #1.jpg", "2 #3.jpg", "x.jpg", "#.jpg")
  text = "cat/photo #1.jpg\n2 #3.jpg \nx.jpg #1.jpg\n#.jpg\n"
  assert read(tmp_path, text, names).tolist() == [1, 2, 3]
  # What is no name is a comment still.
  assert read(tmp_path, "cat/photo #1.JPG\n", names).tolist() == [0]


def test_the_first_entry_decides_what_the_others_are(tmp_path):
  assert read(tmp_path, "3\n0\n", NAMES).tolist() == [0, 3]
  with pytest.raises(
    ValueError, match=r"line 2: 'n1_1.JPEG' is not an integer: the first entry"
  ):
    read(tmp_path, "3\nn1_1.JPEG\n", NAMES)
  with pytest.raises(
    ValueError, match=r"names 1 of 2 .*: line 2: '3'. Correct"
  ):
    read(tmp_path, "n1_1.JPEG\n3\n", NAMES)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    (
      "n1_1.JPEG\nn9.JPEG\n\nA/n1_2.JPEG\n",
      "names 2 of 3 images that .*: line 2: 'n9.JPEG'; line 4: 'A/n1_2.JPEG'",
    ),
    ("n1_1.JPEG\n../a/n1_2.JPEG\n", r"line 2: '\.\./a/n1_2.JPEG'"),
    (
      "x.png\n",
      "line 1: 'x.png' may mean 'b/x.png' and 'c/x.png': write paths",
    ),
    (
      "n1_1.JPEG\na/n1_1.JPEG\n",
      "line 2: image a/n1_1.JPEG is already .* line 1",
    ),
    (
      "\n".join(f"y{i}" for i in range(13)),
      "'y9'; and 3 more. Correct",
    ),
  ],
)
def test_names_that_cannot_be_are_told_with_their_line(tmp_path, text, message):
  with pytest.raises(ValueError, match=f"labelled.txt'.*{message}"):
    read(tmp_path, text, NAMES)


def test_an_empty_list_has_no_rows(tmp_path):
  assert read(tmp_path, "# nothing\n", NAMES).shape == (0,)


def test_a_missing_list_is_named(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"labels_file = '.*none' is not"):
    lists.read(tmp_path / "none", num_images=3)


def test_known_tells_the_papers_lists_by_their_contents(tmp_path, monkeypatch):
  path = tmp_path / "99percent.txt"
  path.write_text("n01440764_10026.JPEG\n")
  assert lists.published_name(path) is None
  digest = hashlib.sha256(b"n01440764_10026.JPEG\n").hexdigest()
  monkeypatch.setitem(lists._PUBLISHED, digest, "1pct")
  assert lists.published_name(path) == "1pct"
  with pytest.raises(FileNotFoundError):
    lists.published_name(tmp_path / "none")


def test_the_hashes_of_the_papers_lists_are_those_published():
  assert {name: digest[:8] for digest, name in lists._PUBLISHED.items()} == {
    "1pct": "71e82a48",
    "10pct": "6d09de11",
  }
  assert all(len(digest) == 64 for digest in lists._PUBLISHED)


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_a_list_that_is_no_regular_file_is_not_read(tmp_path, kind):
  path = odd_files.make(tmp_path / "a.txt", kind)
  with pytest.raises(
    (ValueError, FileNotFoundError), match=r"is not a file|cannot be read"
  ):
    lists.read(path, num_images=9)
