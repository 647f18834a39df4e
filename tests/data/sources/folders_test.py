import os
import re

import numpy as np
import pytest

from paws_jax import errors
from paws_jax.data.sources import folders


def tree(root, *paths):
  """Writes a file at each path; its contents are the path."""
  for path in paths:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(path)
  return root


def load(directory, *, unlabelled="", test=""):
  return folders.load(
    str(directory), unlabelled_dir=str(unlabelled), test_dir=str(test)
  )


def rows(part):
  """(path, label) of each image."""
  return list(zip(part.images.paths, part.labels.tolist(), strict=True))


def test_classes_and_images_are_sorted_by_name(tmp_path):
  root = tree(tmp_path / "pets", "dog/b.jpg", "cat/2.png", "cat/10.png")
  pets = load(root)
  assert pets.name == "pets"
  assert pets.class_names == ("cat", "dog")
  assert rows(pets.train) == [
    ("cat/10.png", 0),
    ("cat/2.png", 0),
    ("dog/b.jpg", 1),
  ]
  assert pets.train.labels.dtype == np.int32
  assert pets.test is None
  assert pets.train.images.read(2) == b"dog/b.jpg"


def test_suffixes_in_any_case_nested_and_nothing_hidden(tmp_path):
  wanted = ["a/1.JPG", "a/2.jpeg", "a/x/y/3.Png", "b/4.webp", "b/5.BMP"]
  wanted += ["b/6.jfif", "b/7.jpe"]
  ignored = [".git/1.jpg", "a/.1.jpg", "a/.thumbs/2.jpg", "b/notes.txt"]
  ignored += ["README.md", "a/jpg", "b/6.jpg.part"]
  got = load(tree(tmp_path, *wanted, *ignored))
  assert list(got.train.images.paths) == wanted
  assert got.class_names == ("a", "b")


def test_a_copy_has_the_same_fingerprint_wherever_its_parts_lie(tmp_path):
  prints = set()
  for place in ("a", "b/deeper"):
    root = tree(tmp_path / place / "labelled", "cat/1.jpg", "dog/2.jpg")
    more = tree(tmp_path / place.replace("b", "c") / "more", "x/3.jpg")
    prints.add(load(root, unlabelled=more).fingerprint())
  assert len(prints) == 1
  tree(more, "y/4.jpg")
  assert load(root, unlabelled=more).fingerprint() not in prints


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"directory": ""}, "data.dir is not set: give --config.data.dir=DIR"),
    (
      {"unlabelled": "more"},
      "data.unlabelled_dir = '.*/more' is not a directory; expected are "
      "images, in folders of any depth",
    ),
    (
      {"test": "absent/tests"},
      "data.test_dir = '/.*/tests' is not a directory; .* one folder per class",
    ),
  ],
)
def test_a_directory_that_is_not_there_says_what_is_expected(
  tmp_path, fields, message
):
  root = tree(tmp_path, "cat/1.jpg", "dog/2.jpg")
  with pytest.raises(FileNotFoundError, match=message):
    load(**{"directory": root} | fields)


@pytest.mark.parametrize("place", ["inside", "absolute", "beside"])
def test_unlabelled_images_follow_the_labelled_ones(tmp_path, place):
  root = tree(tmp_path / "root", "cat/1.jpg", "dog/2.jpg")
  other = {
    "inside": root / "more",
    "absolute": tmp_path / "more",
    "beside": tmp_path / "more",
  }[place]
  tree(other, "z.jpg", "deep/er/y.jpg")
  given = {"inside": "more", "absolute": other, "beside": "../more"}[place]
  got = load(root, unlabelled=given)
  prefix = "more" if place == "inside" else "../more"
  assert got.class_names == ("cat", "dog")
  assert rows(got.train) == [
    ("cat/1.jpg", 0),
    ("dog/2.jpg", 1),
    (f"{prefix}/deep/er/y.jpg", -1),
    (f"{prefix}/z.jpg", -1),
  ]
  assert got.train.images.read(3) == b"z.jpg"


def test_paths_out_of_a_root_that_is_a_link_lead_to_the_images(tmp_path):
  tree(tmp_path / "store/set", "cat/1.jpg")
  tree(tmp_path / "more", "2.jpg")
  (tmp_path / "link").symlink_to(tmp_path / "store/set")
  got = load(tmp_path / "link", unlabelled=tmp_path / "more")
  assert got.name == "link"
  assert [got.train.images.read(i) for i in (0, 1)] == [b"cat/1.jpg", b"2.jpg"]


def test_fingerprint_moves_with_the_data(tmp_path):
  for place in ("one", "two/three"):
    tree(tmp_path / place / "data", "cat/1.jpg", "dog/2.jpg")
    tree(tmp_path / place / "more", "3.jpg")
  one, two = (
    load(tmp_path / place / "data", unlabelled=tmp_path / place / "more")
    for place in ("one", "two/three")
  )
  assert one.fingerprint() == two.fingerprint()


def test_test_images_get_the_labels_of_training(tmp_path):
  tree(tmp_path / "root", "a/1.jpg", "b/2.jpg", "c/3.jpg")
  tree(tmp_path / "held", "c/4.jpg", "b/5.jpg")
  got = load(tmp_path / "root", test="../held")
  assert rows(got.test) == [("b/5.jpg", 1), ("c/4.jpg", 2)]
  assert got.test.images.read(1) == b"c/4.jpg"


def test_test_and_unlabelled_folders_inside_are_no_classes(tmp_path):
  tree(tmp_path, "a/1.jpg", "held/a/2.jpg", "rest/3.jpg", "rest/held/4.jpg")
  got = load(tmp_path, test="held", unlabelled="rest")
  assert got.class_names == ("a",)
  assert rows(got.train) == [
    ("a/1.jpg", 0),
    ("rest/3.jpg", -1),
    ("rest/held/4.jpg", -1),
  ]


def test_test_images_below_the_unlabelled_ones_are_left_out(tmp_path):
  tree(tmp_path, "a/1.jpg", "rest/2.jpg", "rest/held/a/3.jpg")
  got = load(tmp_path, test="rest/held", unlabelled="rest")
  assert rows(got.train) == [("a/1.jpg", 0), ("rest/2.jpg", -1)]
  # Likewise the training images, where all lies below one roof.
  roof = load(tmp_path / "rest/held", unlabelled=tmp_path)
  assert [path for path, label in rows(roof.train) if label == -1] == [
    "../../a/1.jpg",
    "../2.jpg",
  ]


def test_links_are_followed_and_loops_end(tmp_path):
  tree(tmp_path / "store", "1.jpg", "deep/2.jpg")
  root = tree(tmp_path / "root", "b/3.jpg")
  (root / "a").symlink_to(tmp_path / "store")
  (tmp_path / "store/back").symlink_to(tmp_path / "store")
  (tmp_path / "store/deep/up").symlink_to(root)
  (root / "b/self").symlink_to("self")
  got = load(root)
  assert rows(got.train) == [
    ("a/1.jpg", 0),
    ("a/deep/2.jpg", 0),
    ("b/3.jpg", 1),
  ]


def test_a_dangling_link_is_named_when_it_is_read(tmp_path):
  tree(tmp_path, "a/1.jpg")
  (tmp_path / "a/2.jpg").symlink_to("nowhere")
  got = load(tmp_path)
  with pytest.raises(OSError, match=r"a/2\.jpg"):
    got.train.images.read(1)
  # Nor does it matter to what a run is trained on, whether it can be read.
  before = got.fingerprint()
  (tmp_path / "a/2.jpg").unlink()
  tree(tmp_path, "a/2.jpg")
  assert load(tmp_path).fingerprint() == before


def test_files_of_other_kinds_are_counted(tmp_path):
  root = tree(tmp_path / "root", "a/1.jpg", "a/2.HEIC", "a/x/3.heic", "4.heic")
  tree(tmp_path / "root", "a/.5.heic", "a/notes.txt", "README")
  tree(tmp_path / "more", "1.jpg", "2.AVIF", "3.avif")
  tree(tmp_path / "held", "a/1.jpg", "a/2.cr2", "a/3.heif")
  got = load(root, unlabelled="../more", test="../held")
  assert got.other_files == {
    ".heic": 3,
    ".txt": 1,
    "": 1,
    ".avif": 2,
    ".cr2": 1,
    ".heif": 1,
  }
  assert folders.notices(got.other_files) == [
    "3 .heic files are ignored: to use them, convert to JPEG or PNG",
    "2 .avif files are ignored: to use them, convert to JPEG or PNG",
    "1 .cr2 file is ignored: to use it, convert to JPEG or PNG",
    "1 .heif file is ignored: to use it, convert to JPEG or PNG",
  ]
  assert load(tree(tmp_path / "plain", "a/1.jpg")).other_files == {}


@pytest.mark.parametrize("back", [False, True])
def test_a_folder_that_belongs_to_two_classes_is_refused(tmp_path, back):
  tree(tmp_path, "a/1.jpg", "b/2.jpg", "b/deep/3.jpg")
  if back:
    (tmp_path / "b/more").symlink_to(tmp_path / "a")
  else:
    (tmp_path / "a/more").symlink_to(tmp_path / "b/deep")
  with pytest.raises(
    ValueError, match=r"folders 'a' and 'b' lead to .* would have two labels"
  ):
    load(tmp_path)


def test_a_class_may_be_called_like_the_unlabelled_folder(tmp_path):
  tree(tmp_path / "root", "cat/1.jpg", "unlabelled/1.jpg")
  tree(tmp_path / "more", "1.jpg")
  images = load(tmp_path / "root", unlabelled="../more").train.images
  assert len({images.key(row) for row in range(3)}) == 3


@pytest.mark.parametrize(
  ("paths", "message"),
  [
    ((), r"holds 0 images and 0 class folders: expected .* data\.dir/cat/1"),
    (
      ("2.png", "1.jpg"),
      r"holds 2 images \(such as '1.jpg'\) and 0 class folders: expected",
    ),
    (
      ("1.jpg", "cat/2.jpg"),
      r"holds 1 images \(such as '1.jpg'\) and 1 class .*data\.unlabelled_dir",
    ),
    (
      ("cat/1.jpg", "dog/1.mp4", "dog/2.txt", "ox/.3.jpg"),
      r"2 of 3 class folders hold no image: 'dog' \(with 2 files in other "
      r"formats\), 'ox' \(with 0 files",
    ),
  ],
)
def test_wrong_layouts_are_explained(tmp_path, paths, message):
  with pytest.raises(ValueError, match=f"data.dir = .*{message}"):
    load(tree(tmp_path, *paths))


def test_hundreds_of_empty_classes_are_not_listed(tmp_path):
  for number in range(30):
    (tmp_path / f"{number:02}").mkdir()
  with pytest.raises(ValueError, match=r"'09' \(.*\) and 20 more\. Add images"):
    load(tmp_path)


def test_a_link_to_another_class_is_refused(tmp_path):
  (tree(tmp_path, "a/1.jpg") / "b").symlink_to("a")
  with pytest.raises(ValueError, match="folders 'a' and 'b' lead to the same"):
    load(tmp_path)


@pytest.mark.parametrize(
  ("field", "given"),
  [("unlabelled", "rest"), ("test", "held"), ("unlabelled", "a/1.jpg")],
)
def test_directories_that_are_not_there_are_named(
  tmp_path, monkeypatch, field, given
):
  monkeypatch.chdir(tree(tmp_path, "a/1.jpg"))
  wanted = re.escape(repr(str(tmp_path / given)))
  with pytest.raises(FileNotFoundError, match=rf"data\.{field}_dir = {wanted}"):
    load(tmp_path, **{field: given})


def test_data_dir_must_exist(tmp_path, monkeypatch):
  monkeypatch.chdir(tree(tmp_path, "a/1.jpg"))
  with pytest.raises(FileNotFoundError, match=r"data\.dir = 'nowhere' is not"):
    load("nowhere")


@pytest.mark.parametrize("field", ["unlabelled", "test"])
def test_the_same_directory_twice_is_refused(tmp_path, monkeypatch, field):
  monkeypatch.chdir(tree(tmp_path, "a/1.jpg"))
  with pytest.raises(ValueError, match=rf"data.dir and data.{field}_dir are"):
    load(tmp_path, **{field: os.curdir})


def test_an_unlabelled_folder_without_images_is_refused(tmp_path):
  tree(tmp_path, "a/1.jpg", "rest/1.mp4")
  with pytest.raises(
    ValueError, match=r"unlabelled_dir = .* no image, and 1 files in other"
  ):
    load(tmp_path, unlabelled="rest")


def test_unknown_test_classes_are_named(tmp_path):
  tree(
    tmp_path, "train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/B/2.jpg"
  )
  with pytest.raises(
    ValueError, match=r"has 1 class folders that .*lacks: 'B'; data.dir has 'a'"
  ):
    load(tmp_path / "train", test="../test")


@pytest.mark.parametrize("part", ["data", "more", "test"])
def test_a_folder_that_cannot_be_read_is_refused(tmp_path, part):
  tree(tmp_path, "data/cat/1.png", "data/dog/2.png", "more/3.png")
  tree(tmp_path, "test/cat/4.png", "test/dog/5.png")
  deep = {"more": "more"}.get(part, f"{part}/cat")
  # Longer than a path may be, so that not even the superuser reads it.
  here = os.open(tmp_path / deep, os.O_RDONLY)
  for _ in range(20):
    os.mkdir("d" * 250, dir_fd=here)
    below = os.open("d" * 250, os.O_RDONLY, dir_fd=here)
    os.close(here)
    here = below
  os.close(here)
  with pytest.raises(errors.InputError, match=r"' cannot be read .File"):
    load(
      tmp_path / "data", unlabelled=tmp_path / "more", test=tmp_path / "test"
    )
