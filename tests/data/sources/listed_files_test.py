"""Files are found however a table or a list writes their paths."""

import os
import unicodedata

import numpy as np
import pytest

from paws_jax import errors
from paws_jax import text as paws_text
from paws_jax.classifier import classifier
from paws_jax.data.labels import lists
from paws_jax.data.sources import folders
from paws_jax.data.sources import listed_files
from paws_jax.data.sources import manifest
from paws_jax.predict import find_images
from paws_jax.predict import labelled_set
from tests import odd_files

NAME = "caf\u00e9"
FORMS = {form: unicodedata.normalize(form, NAME) for form in ("NFC", "NFD")}
OTHER = {"NFC": FORMS["NFD"], "NFD": FORMS["NFC"]}


def _tree(root, *paths):
  for path in paths:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(path)
  return root


@pytest.fixture
def root(tmp_path):
  return _tree(tmp_path / "images", "a/1.jpg", "b/2.jpg", "b/deep/3.jpg")


def _manifest(root, text, **options):
  table = root.parent / "table.csv"
  table.write_text(text)
  return manifest.load(str(table), directory=str(root), **options)


TABLE = "path,label\na/1.jpg,x\nb/2.jpg,y\nb/deep/3.jpg,\n"


@pytest.mark.parametrize("linked", ["", "root", "images"])
def test_absolute_paths_below_the_directory(root, linked):
  top = given = root
  if linked:
    link = root.parent / "link"
    link.symlink_to(root)
    top, given = (link, root) if linked == "root" else (root, link)
  text = TABLE.replace("\n", f"\n{given}{os.sep}").removesuffix(f"{given}/")
  assert str(given) in text
  want = _manifest(root, TABLE)
  got = _manifest(top, text)
  assert got.train.images.keys == want.train.images.keys
  assert got.fingerprint() == want.fingerprint()
  assert got.train.images.read(2) == b"b/deep/3.jpg"
  with pytest.raises(ValueError, match=r"'/.*x\.jpg' leaves the data direct"):
    _manifest(root, f"path,label\n{root}-other/x.jpg,y\n")
  with pytest.raises(ValueError, match="leaves the data directory"):
    _manifest(root, f"path,label\n{root}/../x.jpg,y\n")


@pytest.mark.parametrize("path", ["/a\0/1.jpg", "\u00e9\0/\u00e9.jpg"])
def test_zero_bytes_are_no_fault_of_the_program(root, path):
  assert listed_files.below(path, str(root)) == path
  assert listed_files.NameForms().find(str(root), path) == path


@pytest.mark.parametrize("path", ["a\\1.jpg", "C:\\images\\a\\1.jpg"])
def test_paths_of_windows_are_named_as_the_cause(root, path):
  words = r"looks like a path of Windows: write / where it has \\"
  with pytest.raises(FileNotFoundError, match=words):
    _manifest(root, f"path,label\n{path},x\n")
  names = ["a/1.jpg", "b/2.jpg"]
  listed = root / "labels.txt"
  listed.write_text(path)
  with pytest.raises(ValueError, match=words):
    lists.read(listed, num_images=2, names=names)
  table = root / "list.csv"
  table.write_text(f"path\n{path}\n")
  (notice,) = find_images.find("--images", str(table)).notices
  assert listed_files.hint([path]) in notice
  # A name may hold one where / separates folders.
  _tree(root, "a\\1.jpg")
  table.write_text("path\na\\1.jpg\n")
  assert find_images.find("--images", str(table)).notices == ()


@pytest.mark.parametrize(
  ("path", "words"),
  [
    ("https://x.org/a/1.jpg", "looks like an address"),
    ("gs://bucket/1.jpg", "looks like an address"),
    ("file:///a/1.jpg", "looks like an address"),
    ("C:/images/1.jpg", "looks like a path of Windows"),
    ("~/1.jpg", "begins with ~"),
    ("'a/1.jpg'", "begins or ends with a space or a quote"),
    ("\u201ca/1.jpg\u201d", "begins or ends with a space or a quote"),
    ("a/1.jpg\u00a0", "begins or ends with a space or a quote"),
  ],
)
def test_other_causes_of_missing_images_are_named(root, path, words):
  with pytest.raises(FileNotFoundError, match=words):
    _manifest(root, f"path,label\n{path},x\n")
  table = root / "list.csv"
  table.write_text(f"path\n{path}\n")
  found = find_images.find("--images", str(table))
  if path.endswith("\u00a0"):
    # Spaces around a path count for nothing there.
    assert found.notices == ()
  else:
    assert words in found.notices[0]
  listed = root / "labels.txt"
  listed.write_text(path)
  if not path.endswith("\u00a0"):
    with pytest.raises(ValueError, match=words):
      lists.read(listed, num_images=1, names=["b/1.jpg"])


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_what_may_have_no_end_is_not_read(tmp_path, kind):
  path = odd_files.make(tmp_path / "odd", kind)
  words = f"the list cannot.*{odd_files.KINDS[kind]}"
  with pytest.raises(errors.InputError, match=words):
    listed_files.read_table(path, "the list")


TEXTS = {
  "UTF-16": TABLE.encode("utf-16"),
  "UTF-16 or binary": TABLE.encode("utf-16-le"),
  "a spreadsheet or an archive": b"PK\x03\x04" + bytes(99),
  "a spreadsheet:": b"\xd0\xcf\x11\xe0" + bytes(99),
  "compressed": b"\x1f\x8b" + bytes(99),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_every_table_and_list_names_what_is_no_text(root, kind):
  path = root / "table.csv"
  path.write_bytes(TEXTS[kind])
  for read in (
    lambda: manifest.load(str(path), directory=str(root)),
    lambda: find_images.find("--images", str(path)),
    lambda: labelled_set.find(str(path), ("x", "y")),
    lambda: lists.read(path, num_images=2, names=["a/1.jpg", "b/2.jpg"]),
  ):
    with pytest.raises(ValueError, match=f"is not UTF-8 but {kind}"):
      read()


@pytest.mark.parametrize(
  ("change", "words"),
  [
    (lambda text: text.replace(",", ";"), "separated by ';': use commas"),
    (lambda text: text.replace(",", "\t"), r"separated by '\\t': use commas"),
    (lambda text: text.replace(",", "|"), r"separated by '\|': use commas"),
    (lambda text: f"sep=,\n{text}", "'sep=' is for spreadsheets: remove it"),
    (lambda text: f"\ufeff\ufeff{text}", "two byte order marks: remove one"),
  ],
)
def test_every_table_names_the_cause_of_a_wrong_first_line(root, change, words):
  path = root / "table.csv"
  path.write_text(change(TABLE))
  for read in (
    lambda: manifest.load(str(path), directory=str(root)),
    lambda: find_images.find("--images", str(path)),
    lambda: labelled_set.find(str(path), ("x", "y")),
  ):
    with pytest.raises(ValueError, match=words):
      read()


@pytest.mark.parametrize(
  "column", [*listed_files.IMAGE_COLUMNS, "Path", "FileName", " image "]
)
def test_every_table_knows_the_same_columns(root, column):
  got = _manifest(root, TABLE.replace("path", column))
  assert got.fingerprint() == _manifest(root, TABLE).fingerprint()
  table = root / "list.csv"
  table.write_text(f"id,{column}\n1,a/1.jpg\n")
  assert find_images.find("--images", str(table)).names == ("a/1.jpg",)


@pytest.mark.parametrize("name", ["lat\udce9in.jpg", "a\\xe9\udcff.jpg"])
def test_names_that_are_no_text_can_be_given_back(root, name):
  (root / "a" / name).write_text("image")
  written = "a/" + paws_text.escape(name)
  assert written != f"a/{name}"
  table = root / "list.csv"
  table.write_text(f"path\n{written}\n")
  found = find_images.find("--images", str(table))
  # Its row in another table is written in the same way.
  assert found.names == (f"a/{name}",)
  assert os.path.isfile(found.path(found.names[0]))
  assert found.notices == ()
  got = _manifest(root, TABLE + f"{written},y\n")
  assert got.train.images.read(3) == b"image"
  listed = root / "labels.txt"
  names = ["a/1.jpg", f"a/{name}"]
  for line in (written, written.removeprefix("a/")):
    listed.write_text(line)
    assert lists.read(listed, num_images=2, names=names).tolist() == [1]


def test_of_several_columns_path_is_first(root):
  text = "image,path,label\nno,a/1.jpg,x\nno,b/2.jpg,y\n"
  assert _manifest(root, text).train.images.paths == ("a/1.jpg", "b/2.jpg")


@pytest.mark.parametrize(
  "line", ["./b/2.jpg", "b//2.jpg", "{root}/b/2.jpg", "2.jpg", "./2.jpg"]
)
def test_one_image_written_differently_in_a_list(root, line):
  listed = root / "labels.txt"
  listed.write_text(line.format(root=root))
  names = ["a/1.jpg", "b/2.jpg", "../unlabelled/9.jpg"]
  got = lists.read(listed, num_images=3, names=names, root=str(root))
  assert got.tolist() == [1]
  listed.write_text(f"./a/1.jpg\n{line.format(root=root)}\na/1.jpg\n")
  with pytest.raises(ValueError, match=r"line 3: .* is already in line 1"):
    lists.read(listed, num_images=3, names=names, root=str(root))


@pytest.mark.parametrize("form", FORMS)
def test_class_folders_of_test_images_match_in_any_form(tmp_path, form):
  train = _tree(tmp_path / "train", f"{FORMS[form]}/1.jpg", "b/2.jpg")
  test = _tree(tmp_path / "test", f"{OTHER[form]}/3.jpg")
  got = folders.load(str(train), unlabelled_dir="", test_dir=str(test))
  assert got.class_names == ("b", FORMS[form])
  assert got.test.labels.tolist() == [1]
  assert got.test.images.read(0) == f"{OTHER[form]}/3.jpg".encode()


@pytest.mark.parametrize("form", FORMS)
def test_paths_and_labels_of_a_manifest_match_in_any_form(tmp_path, form):
  here, other = FORMS[form], OTHER[form]
  root = _tree(tmp_path / "images", f"{here}/{here}.jpg", "2.jpg", "3.jpg")
  table = "path,label,split\n2.jpg,b,\n"
  table += f"{other}/{other}.jpg,{here},\n3.jpg,{other},test\n"
  got = _manifest(root, table)
  assert got.class_names == ("b", FORMS["NFC"])
  assert got.train.labels.tolist() == [0, 1]
  assert got.test.labels.tolist() == [1]
  assert got.train.images.read(1) == f"{here}/{here}.jpg".encode()
  # What a run is known by does not depend on the disk.
  assert got.train.images.key(1) == f"{other}/{other}.jpg"
  with pytest.raises(ValueError, match="lines 2 and 3 both list"):
    _manifest(
      root, f"path,label\n{other}/{other}.jpg,x\n{here}/{here}.jpg,x\n2.jpg,y\n"
    )


def test_labels_of_one_form_stay_as_they_are(root):
  text = TABLE.replace("x", FORMS["NFD"])
  assert FORMS["NFD"] in _manifest(root, text).class_names


@pytest.mark.parametrize("form", FORMS)
def test_lists_of_labels_match_in_any_form(tmp_path, form):
  names = ["a/1.jpg", f"{FORMS[form]}/{FORMS[form]}.jpg"]
  listed = tmp_path / "labels.txt"
  for line in (f"{OTHER[form]}/{OTHER[form]}.jpg", f"{OTHER[form]}.jpg"):
    listed.write_text(line)
    assert lists.read(listed, num_images=2, names=names).tolist() == [1]


def test_two_names_of_one_form_are_distinguished(tmp_path):
  names = [FORMS["NFC"], FORMS["NFD"]]
  listed = tmp_path / "labels.txt"
  for row, name in enumerate(names):
    listed.write_text(name)
    assert lists.read(listed, num_images=2, names=names).tolist() == [row]
  _tree(tmp_path, *names)
  disk = listed_files.NameForms()
  assert [disk.find(str(tmp_path), name) for name in names] == names


@pytest.mark.parametrize("form", FORMS)
def test_images_to_predict_match_in_any_form(tmp_path, form):
  here, other = FORMS[form], OTHER[form]
  _tree(tmp_path, f"{here}/{here}.jpg", "2.jpg")
  table = tmp_path / "list.csv"
  absolute = tmp_path / other / f"{other}.jpg"
  table.write_text(f"path\n{other}/{other}.jpg\n{absolute}\n2.jpg\nno{NAME}\n")
  found = find_images.find("--images", str(table))
  # A row is known by what the table says.
  assert found.names[0] == f"{other}/{other}.jpg"
  for name in found.names[:2]:
    with open(found.path(name)) as file:
      assert file.read() == f"{here}/{here}.jpg"
  assert os.path.isfile(found.path("2.jpg"))
  assert not os.path.exists(found.path(f"no{NAME}"))


def test_a_class_in_another_form_is_there_already():
  with pytest.raises(ValueError, match="is there already"):
    classifier.check_new_class(FORMS["NFD"], (FORMS["NFC"],), has_head=False)


def test_test_images_of_a_manifest_may_lie_in_folders(root, tmp_path):
  held = _tree(tmp_path / "held", "y/4.jpg", "x/5.jpg", "y/@eaDir/6.jpg")
  got = _manifest(root, TABLE, test_dir=str(held))
  assert got.test.images.paths == ("x/5.jpg", "y/4.jpg")
  assert got.test.labels.tolist() == [0, 1]
  assert "'@eaDir' with 1 image" in got.notices[0]
  np.testing.assert_array_equal(got.train.labels, [0, 1, -1])
  assert got.fingerprint() == _manifest(root, TABLE).fingerprint()
  with pytest.raises(ValueError, match=r"1 class folders .* lacks: 'z'"):
    _manifest(root, TABLE, test_dir=str(_tree(tmp_path / "bad", "z/1.jpg")))
  table = TABLE.replace("label\n", "label,split\n").replace("x\n", "x,\n")
  table = table.replace("y\n", "y,\n").replace("jpg,\n", "jpg,x,test\n")
  with pytest.raises(
    ValueError, match=r"1 images with split test, and data.te"
  ):
    _manifest(root, table, test_dir=str(held))


def test_training_images_among_the_test_images_are_refused(root):
  _tree(root, "held/x/4.jpg", "held/y/5.jpg")
  text = TABLE + "held/x/4.jpg,\n"
  with pytest.raises(ValueError, match=r"1 images to train .*'held/x/4\.jpg'"):
    _manifest(root, text, test_dir=str(root / "held"))
  assert (
    len(_manifest(root, TABLE, test_dir=str(root / "held")).test.labels) == 2
  )


def test_labels_of_programs_for_a_missing_one_are_refused(root):
  text = TABLE.replace(",\n", ",nan\n")
  with pytest.raises(
    ValueError,
    match=r"1 rows .*line 4, 'b/deep/3\.jpg': 'nan'\. Leave the cell",
  ):
    _manifest(root, text)
  got = _manifest(root, text, real_labels="nan")
  assert got.class_names == ("nan", "x", "y")


def test_warnings_of_tables_and_folders(root, tmp_path):
  text = TABLE.replace(",x", ",x|y")
  (warning,) = _manifest(root, text).warnings
  assert warning.startswith("1 of 2 classes look like several labels in one")
  _tree(tmp_path / "other", "sky|sea/1.jpg", "sea/2.jpg")
  got = folders.load(str(tmp_path / "other"), unlabelled_dir="", test_dir="")
  assert "'sky|sea'" in got.warnings[0]
  text = TABLE.replace(",x", ",17.5").replace(",y", ",18")
  (warning,) = _manifest(root, text).warnings
  assert "each number is a class of its own" in warning
  with pytest.raises(ValueError, match=r"no training image has .*'20 to 30'"):
    _manifest(root, TABLE.replace(",x", ",17").replace(",y", ",23"))
