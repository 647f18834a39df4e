"""Which images `--test` means, and their labels."""

import json
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from paws_jax import errors
from paws_jax.predict import labelled_set

CLASSES = ("cat", "dog", "café")


def _image(path):
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(path)


def _table(path, *lines):
  path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
  return str(path)


def test_a_folder_for_each_class(tmp_path):
  for name in ("dog/1.png", "cat/deep/2.png", "dog/@eaDir/1.png", "cat/.3.png"):
    _image(tmp_path / name)
  found = labelled_set.find(str(tmp_path), CLASSES)
  assert found.files.names == ("cat/deep/2.png", "dog/1.png")
  assert found.labels.tolist() == [0, 1]
  assert found.labels.dtype == np.int32
  assert found.name == tmp_path.name


def test_another_unicode_form_of_a_class(tmp_path):
  _image(tmp_path / unicodedata.normalize("NFD", "café") / "1.png")
  assert labelled_set.find(str(tmp_path), CLASSES).labels.tolist() == [2]


@pytest.mark.parametrize("column", ["path", "File", "filename"])
def test_a_table(column, tmp_path):
  path = _table(
    tmp_path / "new.csv",
    f"label, {column},note",
    "dog,a/1.png,",
    ",a/2.png,not labelled",
    ",,",
    "cat,/elsewhere/3.png,",
    "dog,a/1.png,again",
  )
  found = labelled_set.find(path, CLASSES)
  assert found.files.names == ("a/1.png", "/elsewhere/3.png")
  assert found.files.path("a/1.png") == str(tmp_path / "a/1.png")
  assert found.files.path("/elsewhere/3.png") == "/elsewhere/3.png"
  assert found.labels.tolist() == [1, 0]
  assert found.name == "new"


def test_of_a_table_with_splits_the_test_images_count(tmp_path):
  path = _table(
    tmp_path / "all.csv", "path,label,split", "1.png,cat,", "2.png,dog,Test"
  )
  assert labelled_set.find(path, CLASSES).files.names == ("2.png",)


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    (["image,class", "1.png,cat"], r"has the columns \['image', 'class'\]: na"),
    (["name,label", "1.png,cat"], "name the columns path and label"),
    (["path,label", "1.png,cow"], r"1 images are of classes .*: 'cow' \(1\.pn"),
    (["path,label", "1.png,"], "no row has a label"),
    (["path,label", ",cat"], "row 2 has 2 fields of 2, or no path"),
    (["path,label", "1.png,cat,x"], "row 2 has 3 fields of 2"),
    (["path,label,split", "1.png,,test"], "1 test images have no label: '1.pn"),
    (["path,label", "1.png,cat", "1.png,dog"], "'1.png' with the labels 'cat'"),
    (["path,label", '"1.png,cat'], "is not a CSV file"),
    ([], "name the columns path"),
  ],
)
def test_tables_that_are_refused(lines, message, tmp_path):
  path = _table(tmp_path / "t.csv", *lines)
  with pytest.raises(errors.InputError, match=message):
    labelled_set.find(path, CLASSES)


def test_directories_and_files_that_are_refused(tmp_path):
  with pytest.raises(FileNotFoundError, match=r"--test=.*no such directory"):
    labelled_set.find(str(tmp_path / "absent"), CLASSES)
  _image(tmp_path / "1.png")
  with pytest.raises(errors.InputError, match="1 of 1 images are in no folder"):
    labelled_set.find(str(tmp_path), CLASSES)
  with pytest.raises(errors.InputError, match="is one image, without a label"):
    labelled_set.find(str(tmp_path / "1.png"), CLASSES)
  _image(tmp_path / "x" / "cow" / "1.png")
  with pytest.raises(errors.InputError, match=r"'cow' \(cow/1\.png\)\. Its cl"):
    labelled_set.find(str(tmp_path / "x"), CLASSES)
  (tmp_path / "latin.csv").write_bytes(b"path,label\n\xff,cat\n")
  with pytest.raises(errors.InputError, match="is not UTF-8"):
    labelled_set.find(str(tmp_path / "latin.csv"), CLASSES)


def test_the_digest_is_of_names_and_classes(tmp_path):
  one = _table(tmp_path / "1.csv", "path,label", "1.png,cat", "2.png,dog")
  two = _table(tmp_path / "2.csv", "path,label", "2.png,dog", "1.png,cat")
  other = _table(tmp_path / "3.csv", "path,label", "1.png,dog", "2.png,dog")
  digests = [
    labelled_set.find(path, CLASSES).digest(CLASSES)
    for path in (one, two, other)
  ]
  assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("other", ["./a.png", "b/../a.png", "{}/a.png"])
def test_an_image_that_is_written_in_two_ways_counts_once(other, tmp_path):
  other = other.format(tmp_path)
  table = tmp_path / "new.csv"
  path = _table(table, "path,label", "a.png,cat", f"{other},cat")
  assert labelled_set.find(path, CLASSES).files.names == ("a.png",)
  path = _table(table, "path,label", "a.png,cat", f"{other},dog")
  with pytest.raises(errors.InputError, match="with the labels 'cat' and 'dog"):
    labelled_set.find(path, CLASSES)


def test_a_table_without_test_images_says_what_is_measured(tmp_path):
  table = tmp_path / "new.csv"
  path = _table(table, "path,label,split", "a.png,cat,train", "b.png,dog,val")
  found = labelled_set.find(path, CLASSES)
  assert found.labels.tolist() == [0, 1]
  (notice,) = found.files.notices
  assert "all 2 with a label are measured, also images of training" in notice
  path = _table(table, "path,label,split", "a.png,cat,", "b.png,dog,")
  assert not labelled_set.find(path, CLASSES).files.notices


def test_predictions_with_a_column_of_labels_name_the_images(tmp_path):
  _image(tmp_path / "images" / "a.png")
  (tmp_path / "images" / "b\udce9.png").write_bytes(b"")
  table = tmp_path / "predictions.csv"
  about = {"images": str(tmp_path / "images"), "columns": ["path"]}
  (tmp_path / "predictions.csv.json").write_text(json.dumps(about))
  path = _table(table, "path,label", "a.png,cat", "b\\xe9.png,dog")
  found = labelled_set.find(path, CLASSES)
  assert found.files.names == ("a.png", "b\udce9.png")
  assert all(map(os.path.exists, map(found.files.path, found.files.names)))


def test_paths_of_windows_are_named_as_the_cause(tmp_path):
  path = _table(tmp_path / "new.csv", "path,label", "a\\b.png,cat")
  (notice,) = labelled_set.find(path, CLASSES).files.notices
  assert "some images do not exist" in notice


def test_a_long_label_is_cut_in_the_message(tmp_path):
  path = _table(tmp_path / "new.csv", "path,label", f"a.png,{'x' * 10_000}")
  with pytest.raises(errors.InputError) as raised:
    labelled_set.find(path, CLASSES)
  assert len(str(raised.value)) < 500
