import numpy as np
import pytest

from paws_jax.data.sources import manifest
from tests import odd_files

IMAGES = ("a/1.jpg", "a/2.jpg", "b/3.jpg", "4.jpg", "5.jpg")


@pytest.fixture
def root(tmp_path):
  for path in IMAGES:
    file = tmp_path / "images" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(path)
  return tmp_path / "images"


def load(root, text):
  """Writes the table beside the images' directory and loads it."""
  path = root.parent / "table.csv"
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return manifest.load(str(path), directory=str(root))


def rows(part):
  return list(zip(part.images.paths, part.labels.tolist(), strict=True))


FULL = """path,label,split
5.jpg,dog,
4.jpg,,train
a/2.jpg,cat,train
a/1.jpg,dog,val
b/3.jpg,cat,test
"""


def test_labels_splits_and_order(root):
  table = load(root, FULL)
  assert table.name == "table"
  assert table.class_names == ("cat", "dog")
  assert rows(table.train) == [("5.jpg", 1), ("4.jpg", -1), ("a/2.jpg", 0)]
  assert rows(table.val) == [("a/1.jpg", 1)]
  assert rows(table.test) == [("b/3.jpg", 0)]
  assert table.train.labels.dtype == np.int32
  assert table.train.images.read(2) == b"a/2.jpg"


@pytest.mark.parametrize(
  "text",
  [
    "\ufeff" + FULL,
    FULL.replace("\n", "\r\n"),
    FULL.replace(",", ", "),
    FULL.replace("\n", "\n\n") + " \n,,\n",
    FULL.replace("4.jpg,,", "./4.jpg,  ,").replace("b/3", "b//3"),
    FULL.replace("dog", '"dog"').rstrip(),
    "".join(
      f"note,{s},{p},{c}\n"
      for p, c, s in (line.split(",") for line in FULL.splitlines())
    ),
  ],
)
def test_the_same_table_written_differently(root, text):
  assert load(root, text).fingerprint() == load(root, FULL).fingerprint()


def test_without_splits_all_is_for_training(root):
  table = load(root, "path,label\n4.jpg,x\n5.jpg,\n")
  assert rows(table.train) == [("4.jpg", 0), ("5.jpg", -1)]
  assert table.test is None
  assert table.val is None


@pytest.mark.parametrize(
  ("name", "meant"),
  [
    ("Split", "split"),
    ("SPLIT", "split"),
    ("splits", "split"),
    ("Labels", "label"),
    ("PATHS", "path"),
  ],
)
def test_a_column_whose_name_is_nearly_one_of_ours_is_refused(
  root, name, meant
):
  with pytest.raises(
    ValueError,
    match=f"a column '{name}', which is ignored: rename it to '{meant}'",
  ):
    load(root, f"path,label,{name}\n4.jpg,x,\n5.jpg,y,test\n")


def test_integers_are_class_numbers_in_numeric_order(root):
  lines = [
    f"{path},{label}" for path, label in zip(IMAGES, "01210", strict=True)
  ]
  table = load(root, "\n".join(["path,label", *lines]))
  assert table.class_names == ("0", "1", "2")
  assert table.train.labels.tolist() == [0, 1, 2, 1, 0]
  (root / "many").mkdir()
  lines = []
  for label in range(12):
    (root / f"many/{label}").touch()
    lines.append(f"many/{label},{label}")
  table = load(root, "\n".join(["path,label", *lines]))
  assert table.train.labels.tolist() == list(range(12))


@pytest.mark.parametrize("labels", [("1", "cat"), ("07", "08"), ("1.0", "2.0")])
def test_other_labels_are_names(root, labels):
  table = load(root, f"path,label\n4.jpg,{labels[1]}\n5.jpg,{labels[0]}\n")
  assert table.class_names == labels
  assert table.train.labels.tolist() == [1, 0]


def test_labels_keep_what_tells_them_apart(root):
  # That they look alike is reported by the doctor, not fixed in silence.
  table = load(root, "path,label\n4.jpg,cat\n5.jpg,cat \na/1.jpg,Cat\n")
  assert table.class_names == ("Cat", "cat", "cat ")


def test_quotes_protect_commas_and_line_ends(root):
  (root / "a, b\n.jpg").touch()
  table = load(root, 'path,label\n"a, b\n.jpg","x, ""y"""\n4.jpg,z\n')
  assert table.train.images.paths == ("a, b\n.jpg", "4.jpg")
  assert table.class_names == ('x, "y"', "z")
  # Lines are counted as an editor does.
  with pytest.raises(ValueError, match=r"line 4, '4.jpg': split 'x'"):
    load(root, 'path,label,split\n"a, b\n.jpg",x,\n4.jpg,z,x\n')


def test_a_link_may_lead_out_of_the_directory(root):
  (root.parent / "store.jpg").write_text("far")
  (root / "6.jpg").symlink_to("../store.jpg")
  table = load(root, "path,label\n6.jpg,x\n")
  assert table.train.images.read(0) == b"far"


def test_where_manifest_and_images_may_lie(root, monkeypatch):
  want = load(root, FULL).fingerprint()
  inside = root / "list.csv"
  inside.write_text(FULL)
  for path, directory in (
    (str(inside), ""),
    ("list.csv", str(root)),
    (str(inside), str(root)),
  ):
    assert manifest.load(path, directory=directory).fingerprint() == want
  monkeypatch.chdir(root)
  assert manifest.load("list.csv", directory="").fingerprint() == want


HEAD = "path,label,split\n"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("", " lists no image: write the columns"),
    ("\n ,\n", " lists no image"),
    ("\na,b\n", ", line 2 has no column 'path'"),
    (HEAD, " lists no image"),
    (
      "path,class\n4.jpg,x\n",
      r", line 1 has no column 'label', but \['path', ",
    ),
    (
      "path;label\n4.jpg;x\n",
      r"no column 'path', but \['path;label'\].*commas",
    ),
    (
      "path,Label\n4.jpg,x\n",
      ", line 1 has a column 'Label', which is ignored: rename it to 'label'",
    ),
    (HEAD + "4.jpg,x,,\n", "2 has 4 fields, .* and end no line with a comma"),
    ("4.jpg,x\n", r", line 1 has no column 'path', but \['4.jpg', 'x'\]"),
    ("path,label,path\n", ", line 1 names 2 columns 'path': keep one"),
    (
      HEAD + "4.jpg,x,\n5.jpg,x\n",
      ", line 3 has 2 fields, but the first line 3",
    ),
    (HEAD + "4.jpg,x, y,\n", ', line 2 has 4 fields, .* a comma in "quotes"'),
    (HEAD + '4.jpg,"x,\n', ", line 2 is not valid CSV .*: close each quote"),
    (HEAD.encode() + b"4.jpg,caf\xe9,\n", r", line 2 is not UTF-8 \(byte 0xe9"),
    (HEAD + "4.jpg,x,dev\n", ", line 2, '4.jpg': split 'dev' is unknown: use"),
    (HEAD + "4.jpg,x,Train\n", "split 'Train' is unknown: use train, val or"),
    (HEAD + "4.jpg,x,\n ,x,\n", ", line 3 has a blank path"),
    (HEAD + "../x.jpg,x,\n", r", line 2: the path '../x.jpg' leaves the data"),
    (HEAD + "a/../../x.jpg,x,\n", r"the path 'a/../../x.jpg' leaves"),
    (HEAD + "..\\x.jpg,x,\n", "line 2: the path .* leaves the data directory"),
    (HEAD + "/etc/passwd,x,\n", r"line 2: the path '/etc/passwd' leaves"),
    (
      HEAD + "4.jpg,x,\n5.jpg,x,\n./4.jpg,y,\n",
      ": lines 2 and 4 both list '4.jpg', with labels 'x' and 'y': remove",
    ),
    (HEAD + "4.jpg,x,\n4.jpg,,\n", "lines 2 and 3 .*, with labels 'x' and ''"),
    (
      HEAD + "4.jpg,x,\n4.jpg,x,test\n",
      "lines 2 and 3 .*, with splits 'train' and 'test': remove",
    ),
    (HEAD + "4.jpg,x,\n4.jpg,x,\n", "with the same label and split: remove"),
    (
      HEAD + "4.jpg,,\n5.jpg,x,test\n",
      "1 images of val or test have a label that no training image has",
    ),
    (
      HEAD + "4.jpg,x,\n5.jpg,,test\na/1.jpg,,val\n",
      "2 images of val or test have no label: line 3, '5.jpg'; line 4, 'a/1",
    ),
    (
      HEAD + "4.jpg,x,\n5.jpg,y,test\n",
      "1 images of val or test have a label that .*: line 3, '5.jpg': 'y'. C",
    ),
    (
      HEAD + "4.jpg,0,\n5.jpg,3,\n",
      "integers up to 3, but no training image has the label 1, 2: label",
    ),
    (HEAD + "4.jpg,1,\n5.jpg,2,\n", "has the label 0: label an image of each"),
    (
      HEAD + "4.jpg,0,\n5.jpg,123456789012,\n",
      "up to 123456789012, but .* label 1, 2, 3, 4, 5 and 123,456,789,006 more",
    ),
    (
      HEAD + "4.jpg,0,\n5.jpg,-1,\n",
      r"1 labels are negative: line 3, '5.jpg': -1. Leave .* blank",
    ),
    (HEAD + "4.jpg,0,\n5.jpg,1,val\n", "1 images of val .*'5.jpg': '1'"),
  ],
)
def test_what_a_manifest_must_not_hold(root, text, message):
  with pytest.raises(
    ValueError, match=rf"data.manifest = '.*table.csv'.*{message}"
  ):
    load(root, text)


def test_missing_images_are_counted_and_the_first_listed(root):
  lines = "".join(f"no{{{i}}}.jpg,x,\n" for i in range(7))
  with pytest.raises(FileNotFoundError) as caught:
    load(root, HEAD + "4.jpg,x,\n" + lines + "a.jpg,x,\n")
  message = str(caught.value)
  assert (
    f": 8 of 9 images do not exist in {str(root)!r}: line 3, 'no{{0}}.jpg'; "
    in (message)
  )
  assert "'no{4}.jpg'; and 3 more. Correct the paths" in message
  assert "no{5}" not in message


@pytest.mark.parametrize("kind", [k for k in odd_files.KINDS if k != "huge"])
def test_rows_that_name_no_file_are_not_said_to_be_missing(root, kind):
  odd_files.make(root / "odd.jpg", kind)
  with pytest.raises(ValueError, match=r"1 of 2 rows name a dir.*3, 'odd.jpg'"):
    load(root, HEAD + "4.jpg,x,\nodd.jpg,y,\n")


@pytest.mark.parametrize("path", ["", "none.csv"])
def test_a_missing_manifest_is_named(root, path):
  with pytest.raises(
    FileNotFoundError, match=f"data.manifest = '{path}' is not a file: give"
  ):
    manifest.load(path, directory=str(root))


def test_a_missing_directory_is_named(root):
  (root / "list.csv").write_text(FULL)
  with pytest.raises(FileNotFoundError, match=r"data\.dir = 'nowhere' is not"):
    manifest.load(str(root / "list.csv"), directory="nowhere")


@pytest.mark.parametrize("kind", odd_files.KINDS)
def test_a_manifest_that_is_no_regular_file_is_not_read(tmp_path, kind):
  path = odd_files.make(tmp_path / "a.csv", kind)
  with pytest.raises(
    (ValueError, FileNotFoundError), match=r"is not a file|cannot be read"
  ):
    manifest.load(str(path), directory="")
